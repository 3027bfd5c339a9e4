"""The pages of docs/: their commands, run in the order of each page, and what their tables say.

Only sizes are changed, as :func:`small` says.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mimsuite import config, errors
from mimsuite.cli.main import main
from mimsuite.methods import build
from tests.data.remote_servers import KEY, SECRET, Rclone, need_rclone
from tests.pages import ROOT, Command, blocks, commands, files

PAGES = {page.name: page for page in sorted((ROOT / "docs").glob("*.md"))}
EVIDENCE = sorted((ROOT / "docs" / "evidence").glob("*.md"))

# Pages whose commands another test runs, or takes at a small size: minutes to hours as printed.
ELSEWHERE = {
    "probes.md": "tests/test_probe_docs.py",
    "dense.md": "tests/cli/test_cli_dense.py",
    "dictionary.md": "tests/cli/test_cli_dictionary.py",
    "large-data.md": "tests/test_docs.py",  # below, beside a server
}
HERE = [name for name in PAGES if name not in ELSEWHERE]

# What `--smoke` leaves larger than a test needs.
SMALLER = {
    "image/mae-tiny-fashion": ["data.limit=256"],
    "image/mr-mae-tiny-clipart": ["data.limit=128"],
    "points/cmae-tiny-furniture": ["model.encoder.depth=4"],  # as what is trained on from it
    "points/segment-tiny-parts": ["model.encoder.width=32"],
    "video/videomae2-tiny-motion": ["data.limit=16"],
}


def small(command: Command, page: str) -> list[str]:
    """The same command at a size for tests."""
    words = list(command.words)
    if words[0] in ("pretrain", "finetune", "attentive-probe"):
        words += ["--smoke", *SMALLER.get(words[1], [])] if "--dry-run" not in words else []
        if page == "hybrid-distillation.md" and words[1] == "image/mae-tiny-clipart":
            words += ["model.encoder.depth=4"]  # as its student expects
    if words[:2] == ["data", "synth"] and "--count" in words:
        words[words.index("--count") + 1] = "24"
    if words[0] == "linear-probe":
        words += ["eval.layers=[2]", "eval.pool=mean"]
    if "--gpus" in words and torch.cuda.device_count() < 8:
        at = words.index("--gpus")
        words[at : at + 2] = ["--procs", "2"]
    return words


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Photos and waves of two classes, weights, an empty folder, and the recipes of a clone."""
    rng = np.random.default_rng(0)
    for number in range(40):
        file = tmp_path / "photos" / ("cats", "dogs")[number % 2] / f"{number}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (60, 80, 3), dtype=np.uint8)).save(file)
    for number in range(40):
        wave = (
            tmp_path
            / "waves"
            / ("train", "test")[number % 2]
            / "ab"[number // 20]
            / f"{number}.npy"
        )
        wave.parent.mkdir(parents=True, exist_ok=True)
        np.save(wave, rng.normal(size=64).astype(np.float32))
    (tmp_path / "empty").mkdir()
    shutil.copytree(ROOT / "recipes", tmp_path / "recipes")
    small_mae = build(config.load("image/mae-vitb16-in1k", smoke=True).recipe)
    torch.save({"model": small_mae.export_reference()}, tmp_path / "mae_pretrain_vit_base_full.pth")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    return tmp_path


@pytest.mark.parametrize("name", HERE)
def test_every_command_of_the_page_runs(
    name: str, place: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    if name == "slurm.md":  # the only page that speaks of shards which no command of it makes
        shutil.copytree("photos", "shards")
    run(name, place, capfd)


def run(name: str, place: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """The commands of a page, and its lines of Python where it has some, in their order."""
    for file, text in files(PAGES[name]).items():
        (place / file).write_text(text)
    found = commands(PAGES[name])
    assert found, f"docs/{name} has no command that is run"
    for command in found:
        words = small(command, name)
        code = main(words)
        said = capfd.readouterr()
        assert code == command.exit_code, f"mimsuite {' '.join(words)}\n{said.err}"
        assert "Traceback" not in said.err
    names: dict[str, object] = {}
    for info, text in blocks(PAGES[name]):
        if info == ["python"]:
            exec(text, names)
    if name == "python.md":
        assert names["features"].tokens.shape[0] == 2  # type: ignore[attr-defined]
        assert names["pictures"].shape == (2, 1, 28, 28)  # type: ignore[attr-defined]


@pytest.fixture
def store(place: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An S3 server that ``s3://`` means, with the photos as shards in its ``bucket``."""
    need_rclone()
    root = place / "store"
    assert main(["data", "pack", "photos", str(root / "bucket" / "shards"), "--resize", "256"]) == 0
    server = Rclone(root)
    server.start()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.port}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    try:
        yield root
    finally:
        server.stop()


def test_large_data_is_read_from_a_server(
    place: Path, store: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree("photos", "drawings")
    run("large-data.md", place, capfd)


@pytest.mark.parametrize("page", EVIDENCE, ids=lambda page: page.stem)
def test_evidence_names_recipes_and_keys_that_exist(page: Path) -> None:
    found = commands(page)
    assert found or page.stem == "index"
    for command in found:
        assert main(list(command.words)) == command.exit_code == 0


@pytest.mark.parametrize("page", [*PAGES.values(), *EVIDENCE], ids=lambda page: page.stem)
def test_pages_are_short(page: Path) -> None:
    assert len(page.read_text().splitlines()) < 200


@pytest.mark.parametrize(("name", "test"), ELSEWHERE.items())
def test_the_others_are_run_elsewhere(name: str, test: str) -> None:
    if name not in PAGES:
        pytest.fail(f"docs/{name} is gone: take it off the list")
    code, page = (ROOT / test).read_text(), PAGES[name].read_text()
    tool = re.search(r"tools/(\w+)\.py", page)
    named = [name, *([tool[1]] if tool else []), *(c.words[0] for c in commands(PAGES[name]))]
    assert any(word in code for word in named)


@pytest.mark.parametrize(
    "page", [*PAGES.values(), *EVIDENCE, ROOT / "README.md"], ids=lambda page: page.name
)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_recipes_that_pages_name_exist() -> None:
    names = config.recipe_names()
    wrong = []
    for page in [*PAGES.values(), ROOT / "README.md"]:
        text = page.read_text().replace("image/mae-tiny-fashoin", "")  # wrong on purpose
        for found in re.findall(
            r"(?<!/)\b((?:image|video|points|volume|bands)/[a-z0-9][\w-]*[*\w])", text
        ):
            stem = found.removesuffix("*").rstrip("`")
            if not any(name.startswith(stem) for name in names):
                wrong.append(f"{page.name}: {found}")
    assert not wrong


def test_exit_codes_are_those_of_the_errors() -> None:
    rows = re.findall(r"^\| (\d+) \| `(\w+)` \|", PAGES["exit-codes.md"].read_text(), re.MULTILINE)
    documented = {name: int(code) for code, name in rows}
    real = {
        cls.__name__: cls.exit_code
        for cls in vars(errors).values()
        if isinstance(cls, type) and issubclass(cls, errors.MimsuiteError)
    }
    assert real.pop("CorruptSample") == real["DataError"]  # never the end of a command by itself
    assert documented == real


def test_the_picture_is_not_too_large() -> None:
    file = ROOT / "docs" / "pictures" / "four.png"
    assert file.stat().st_size < 400_000
    with Image.open(file) as picture:
        assert picture.width > 800


@pytest.mark.slow  # half a minute
def test_the_picture_can_be_made(tmp_path: Path) -> None:
    command = [sys.executable, ROOT / "tools" / "readme_picture.py", "--smoke"]
    places = ("--out", tmp_path / "four.png", "--work", tmp_path / "runs")
    done = subprocess.run([*command, *places], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "four.png").is_file()
