"""The README's commands, each run as printed, in the order in which they are printed.

Only sizes are changed: `pretrain` and `finetune` get `--smoke`, `finetune` a smaller batch.
"""

from __future__ import annotations

import fnmatch
import re
import shlex
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mimsuite import config
from mimsuite.cli.main import main
from mimsuite.config.keys.shared import Recipe
from mimsuite.config.learning import learning

README = Path(__file__).parent.parent / "README.md"
CHOOSING = README.parent / "docs" / "choosing-a-method.md"  # has the published figures


def claims() -> list[str]:
    """What shows the claims of the README's first table: the commands, in its order."""
    table = README.read_text().partition("## What no other suite does")[2].partition("\n## ")[0]
    lines = [line for line in table.splitlines() if line.startswith("| ")][1:]
    found = [re.search(r"\| `([^`]+)` \|$", line) for line in lines]
    assert all(found), "a claim without the command that shows it"
    return [one[1] for one in found if one]


def commands() -> list[str]:
    found = re.findall(r"^```(\w*)\n(.*?)^```", README.read_text(), flags=re.DOTALL | re.MULTILINE)
    blocks = [block for language, block in found if not language]
    lines = [line.partition("  #")[0].strip() for block in blocks for line in block.splitlines()]
    return [line for line in (*lines, *claims()) if line.startswith("mimsuite ")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A place with the photos that the README speaks of."""
    folder = tmp_path_factory.mktemp("readme")
    rng = np.random.default_rng(0)
    for number in range(240):
        file = folder / "photos" / ("cats", "dogs")[number % 2] / f"{number}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (60, 80, 3), dtype=np.uint8)).save(file)
    return folder


def test_it_is_short() -> None:
    assert len(README.read_text().splitlines()) <= 150


def test_every_command_runs(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    assert len(commands()) >= 15
    for line in commands():
        words = shlex.split(line)[1:]
        if words[0] in ("pretrain", "finetune") and not {"--smoke", "--dry-run"} & set(words):
            words.append("--smoke")
        if words[0] == "finetune":
            words.append("train.global_batch=20")  # a fold of the few samples has no more
        assert main(words) == 0, f"{line}\n{capfd.readouterr().err}"


def test_what_shows_the_other_claims_is_there() -> None:
    """Tests and tools that they name exist, and so do targets of make; golden checks are run."""
    targets = re.findall(r"^([\w-]+):", (README.parent / "Makefile").read_text(), re.MULTILINE)
    found = [shlex.split(line) for line in claims() if not line.startswith("mimsuite ")]
    assert len(found) >= 4
    for words in found:
        if words[0] == "make":
            assert words[1] in targets
            continue
        assert words[0] == "python"
        files = [word for word in words if word.endswith((".py", ".json"))]
        assert files
        assert all((README.parent / file).is_file() for file in files), words
        if "tools/check_golden.py" in words:
            done = subprocess.run([sys.executable, *words[1:]], cwd=README.parent)
            assert done.returncode == 0


def rows() -> list[list[str]]:
    """The table of methods: method, paper, modality, status, learning, recipe, how verified."""
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
    published = dict(published_figures())
    assert len(rows()) >= 14
    assert set(published) == {re.findall(r"\d{4}\.\d{5}", row[1])[0] for row in rows()}
    for name, paper, modality, status, _, patterns, proof in rows():
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
            shown = {"grids": "volume"}.get(about.modality, about.modality)
            assert shown in modality.split(", "), name
            assert number in about.paper, name
            assert card.status == status, name
            if status == "verified":
                assert ("20 steps" in proof) == ("trajectory" in card.proof), name
                assert proof.startswith("step"), name
        known = [about.published for about in everything if number in about.paper]
        figures = re.findall(r"\d+\.\d+", published[number])
        assert set(figures) <= set(re.findall(r"\d+\.\d+", " ".join(known))), name


def published_figures() -> list[tuple[str, str]]:
    """The published figures by the paper's number, of the page on choosing a method."""
    return re.findall(
        r"^\| [^|]*\((\d{4}\.\d{5})\) \| ([^|]*) \|", CHOOSING.read_text(), re.MULTILINE
    )


def test_learning_is_what_the_evidence_says() -> None:
    """`make evidence-pages` writes this column; nobody does by hand."""
    for name, _, _, _, said, patterns, _ in rows():
        found = [
            recipe
            for pattern in re.findall(r"`([^`]+)`", patterns)
            for recipe in config.recipe_names()
            if fnmatch.fnmatch(recipe, pattern)
        ]
        assert said == (learning(*found) or "-"), f"{name}: run `make evidence-pages`"


def test_the_table_has_every_method(pretraining: dict[str, Recipe]) -> None:
    patterns = [pattern for row in rows() for pattern in re.findall(r"`([^`]+)`", row[5])]
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
