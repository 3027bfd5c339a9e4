"""A run beside healthy runs of the same recipe: found by its settings, told in a sentence."""

from __future__ import annotations

import json
import math
import runpy
import sys
from pathlib import Path

import pytest
import yaml

from mimsuite import config
from mimsuite.cli.main import main
from mimsuite.report import reference
from mimsuite.report.curves import draw_curves
from mimsuite.report.reference import beside_reference, reference_of, references, settings_of
from mimsuite.report.run_facts import RunFacts

RECIPE = "image/mae-tiny-fashion"
TOOL = Path(__file__).resolve().parents[2] / "tools" / "reference_curves.py"


def make(path: Path, *keys: str, factor: float = 1.0, steps: int = 2000) -> Path:
    """A run of the recipe whose loss falls from 1.2 to 0.5, times a factor."""
    path.mkdir(parents=True)
    (path / "config.yaml").write_text(config.load(RECIPE, keys).yaml())
    rows = [
        {"step": n, "loss": factor * (0.5 + 0.7 * math.exp(-n / 300))}
        for n in range(20, steps + 1, 20)
    ]
    (path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (path / "DONE").write_text("{}")
    return path


def tool(monkeypatch, *words: object) -> int:
    monkeypatch.setattr(sys, "argv", [TOOL.name, *map(str, words)])
    return runpy.run_path(str(TOOL))["main"]()


@pytest.fixture
def stored(tmp_path, monkeypatch):
    """References in a folder of the test's own: one, of three runs, made by the tool."""
    runs = [make(tmp_path / str(n), f"train.seed={n}", factor=1 + n / 200) for n in range(3)]
    folder = tmp_path / "curves"
    monkeypatch.setattr(reference, "FOLDER", folder)
    assert tool(monkeypatch, RECIPE, *runs) == 0
    references.cache_clear()
    yield folder
    references.cache_clear()


def test_a_run_has_the_reference_of_its_settings(stored, tmp_path):
    (one,) = references()
    assert (one.recipe, one.runs) == (RECIPE, 3)
    assert (stored / f"{RECIPE}.json").stat().st_size < 6000
    for keys, found in (
        (["train.seed=7", "data.workers=0", "log.every_steps=5"], True),
        (["optim.lr=0.001"], False),
        (["data.limit=600"], False),
        (["train.global_batch=64"], False),
    ):
        document = yaml.safe_load(config.load(RECIPE, keys).yaml())
        assert (reference_of(document) is not None) == found
    assert reference_of({}) is None


@pytest.mark.parametrize(
    ("factor", "steps", "says"),
    [
        (1.0, 2000, "Loss 0.5009 at step 2000; 3 runs of this recipe had 0.50"),
        (1.02, 400, "; 3 runs of this recipe had "),
        (1.5, 400, "is far above the "),
        (0.6, 2000, "is far below the "),
    ],
)
def test_only_a_loss_that_is_far_off_is_called_so(stored, tmp_path, factor, steps, says):
    found = beside_reference(RunFacts.read(make(tmp_path / "own", factor=factor, steps=steps)))
    assert says in found
    assert found.endswith(".")
    assert ". " not in found  # one sentence


def test_it_is_in_the_curves_the_page_and_the_terminal(stored, tmp_path, capfd):
    run = make(tmp_path / "own", factor=1.5, steps=400)
    with_it = draw_curves(run)
    assert main(["runs", "show", str(run)]) == 0
    assert "is far above the " in capfd.readouterr().err
    out = tmp_path / "both.html"
    assert main(["runs", "compare", str(run), str(tmp_path / "0"), "--out", str(out)]) == 0
    assert "is far above the " in out.read_text()
    (stored / f"{RECIPE}.json").unlink()
    references.cache_clear()
    assert draw_curves(run) != with_it
    assert beside_reference(RunFacts.read(run)) == ""


def test_the_tool_refuses_runs_of_other_settings(stored, tmp_path, monkeypatch):
    other = make(tmp_path / "other", "optim.lr=0.001")
    with pytest.raises(SystemExit, match=f"other is no finished run of {RECIPE} as it is"):
        tool(monkeypatch, RECIPE, other)


@pytest.mark.parametrize("path", sorted(reference.FOLDER.rglob("*.json")), ids=lambda p: p.stem)
def test_what_the_package_has_is_of_recipes_as_they_are(path):
    one = json.loads(path.read_text())
    assert path.relative_to(reference.FOLDER).with_suffix("").as_posix() == one["recipe"]
    settings = settings_of(yaml.safe_load(config.load(one["recipe"]).yaml()))
    changed = {key for key, value in one["settings"].items() if settings.get(key) != value}
    assert changed == set(), "make it again: tools/reference_curves.py"
