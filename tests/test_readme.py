"""The README's commands, each run as printed, in the order in which they are printed.

Only sizes are changed: `pretrain` and `finetune` get `--smoke`.
"""

from __future__ import annotations

import fnmatch
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mimsuite import config
from mimsuite.config.keys.shared import Recipe
from mimsuite.methods import build
from tests.data.remote_servers import KEY, SECRET, Rclone, need_rclone

README = Path(__file__).parent.parent / "README.md"


def commands() -> list[str]:
    found = re.findall(r"^```(\w*)\n(.*?)^```", README.read_text(), flags=re.DOTALL | re.MULTILINE)
    blocks = [block for language, block in found if not language]
    lines = [line.partition("  #")[0].strip() for block in blocks for line in block.splitlines()]
    return [line for line in lines if line.startswith("mimsuite ")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A place with the photos and the official weights that the README speaks of."""
    folder = tmp_path_factory.mktemp("readme")
    (folder / "photos").mkdir()
    rng = np.random.default_rng(0)
    for number in range(20):
        pixels = rng.integers(0, 255, (60, 80, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "photos" / f"{number}.jpg")
    small = build(config.load("image/mae-vitb16-in1k", smoke=True).recipe)
    weights = folder / "mae_pretrain_vit_base_full.pth"
    torch.save({"model": small.export_reference()}, weights)
    return folder


@pytest.fixture(scope="module")
def store(folder: Path) -> Iterator[dict[str, str]]:
    """An S3 server, and the environment in which it is the one that ``s3://`` means."""
    need_rclone()
    (folder / "store" / "bucket").mkdir(parents=True)
    server = Rclone(folder / "store")
    server.start()
    try:
        yield {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{server.port}",
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET,
        }
    finally:
        server.stop()


def test_every_command_runs(folder: Path, store: dict[str, str]) -> None:
    assert len(commands()) >= 18
    environment = os.environ | {"OMP_NUM_THREADS": "1"} | store
    for number, line in enumerate(commands()):
        words = shlex.split(line)[1:]
        if words[0] in ("pretrain", "finetune"):
            words.append("--smoke")
        if words[0] == "pretrain" and "--out" not in words:
            words += ["--out", f"runs/{number}"]
        if "--gpus" in words and torch.cuda.device_count() < 8:
            at = words.index("--gpus")
            words[at : at + 2] = ["--procs", "2"]
        if "s3://" in line:
            shutil.copytree(folder / "shards", folder / "store" / "bucket" / "shards")
        done = subprocess.run(
            [sys.executable, "-m", "mimsuite", *words],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, f"{line}\n{done.stderr}"


def test_the_python_lines_run(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    code = re.findall(r"```python\n(.*?)```", README.read_text(), flags=re.DOTALL)[0]
    names: dict[str, object] = {"images": torch.zeros(2, 1, 28, 28, dtype=torch.uint8)}
    exec(code, names)
    assert names["features"].tokens.shape[0] == 2  # type: ignore[attr-defined]
    assert names["pictures"].shape == (2, 1, 28, 28)  # type: ignore[attr-defined]


def rows() -> list[list[str]]:
    """The table of methods: method, paper, modality, status, recipes, published, verified how."""
    table = README.read_text().partition("## Methods")[2].partition("\n\n*")[0]
    return [[cell.strip() for cell in line[1:-1].split("|")] for line in table.splitlines()[4:]]


@pytest.fixture(scope="module")
def recipes() -> dict[str, Recipe]:
    """All recipes by name."""
    return {name: config.load(name).recipe for name in config.recipe_names()}


@pytest.fixture(scope="module")
def pretraining(recipes: dict[str, Recipe]) -> dict[str, Recipe]:
    """Those that pretrain."""
    return {name: one for name, one in recipes.items() if one.recipe.task == "pretrain"}


def test_the_table_of_methods_says_what_the_recipes_say(
    recipes: dict[str, Recipe], pretraining: dict[str, Recipe]
) -> None:
    everything = [recipe.recipe for recipe in recipes.values()]
    assert len(rows()) >= 14
    for name, paper, modality, status, patterns, published, proof in rows():
        found = [
            recipe
            for pattern in re.findall(r"`([^`]+)`", patterns)
            for recipe_name, recipe in pretraining.items()
            if fnmatch.fnmatch(recipe_name, pattern)
        ]
        assert found, name
        number = re.findall(r"\d{4}\.\d{5}", paper)[0]
        for recipe in found:
            about, card = recipe.recipe, recipe.card
            assert {"grids": "volume"}.get(about.modality, about.modality) == modality, name
            assert number in about.paper, name
            assert card.status == status, name
            if status == "verified":
                assert ("20 steps" in proof) == ("trajectory" in card.proof), name
                assert proof.startswith("step"), name
        known = [about.published for about in everything if number in about.paper]
        figures = re.findall(r"\d+\.\d+", published)
        assert set(figures) <= set(re.findall(r"\d+\.\d+", " ".join(known))), name


def test_the_table_has_every_method(pretraining: dict[str, Recipe]) -> None:
    patterns = [pattern for row in rows() for pattern in re.findall(r"`([^`]+)`", row[4])]
    # A tokenizer that CAE learns from, and a downstream task.
    others = {"dvae", "point-segment"}
    for name, recipe in pretraining.items():
        if recipe.method.name not in others:
            assert any(fnmatch.fnmatch(name, pattern) for pattern in patterns), name


def test_the_notice_credits_every_paper_and_set() -> None:
    top = README.parent
    notice = (top / "NOTICE").read_text()
    files = [*(top / "mimsuite").rglob("*.py"), *(top / "recipes").rglob("*.yaml")]
    found = {n for file in files for n in re.findall(r"arXiv:(\d{4}\.\d{4,5})", file.read_text())}
    assert len(found) > 30
    assert sorted(number for number in found if number not in notice) == []
    embedded = top / "mimsuite" / "data" / "embedded"
    assert [file.name for file in embedded.glob("*.*") if file.name not in notice] == []


def test_the_version_is_printed() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "mimsuite", "--version"], capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (0, f"mimsuite {version('mimsuite')}\n")
