"""Classes that are each other's reverse: direction accuracy, and what a single frame tells."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from mimsuite import config, evaluate
from mimsuite.data.synthetic.synth import synthesise
from mimsuite.data.video import clip_indices
from mimsuite.errors import UserError
from mimsuite.evaluate.probe_recipe import compose
from mimsuite.evaluate.scoring.classes import ClassScorer, judged_by, opposite_classes
from mimsuite.train.run import train

NAMES = ["left", "right", "still", "up", "down"]
PAIRS = (("left", "right"), ("up", "down"))
MOTIONS = "[[pan-left,pan-right],[pan-up,pan-down],[zoom-in,zoom-out]]"


def test_direction_by_hand() -> None:
    """Right class, its opposite, a class without one, and a third class before the right one."""
    source: Any = SimpleNamespace(name="it", classes=NAMES)
    opposite = opposite_classes(source, PAIRS)
    assert opposite == {0: 1, 1: 0, 3: 4, 4: 3}
    scores = torch.tensor([[2.0, 1, 0, 0, 0], [2, 1, 0, 0, 0], [2, 0, 1, 0, 0], [9, 0, 0, 2, 1]])
    judged = judged_by(scores, torch.tensor([0, 1, 2, 3]), opposite)
    assert [one.ahead for one in judged] == [1, 0, -1, 1]
    recipe = config.with_overrides(
        config.load("video/videomae-tiny-finetune"),
        {"eval.opposites": [list(pair) for pair in PAIRS], "target.classes": 5},
    )
    scorer = ClassScorer(recipe)
    assert scorer.measure(judged)["direction_accuracy"] == pytest.approx(2 / 3)
    assert scorer.details({"pretrained": judged})["ahead"] == {"pretrained": "101"}
    assert scorer.gains(judged, judged)["direction_accuracy"]["difference"] == 0.0


def test_an_opposite_that_is_no_class() -> None:
    source: Any = SimpleNamespace(name="it", classes=NAMES)
    with pytest.raises(UserError, match=r"eval\.opposites: it has no class 'away'"):
        opposite_classes(source, (("left", "away"),))


def test_a_still_is_one_frame() -> None:
    rng = np.random.default_rng(0)
    drawn = [clip_indices.still(9, 4, rng) for _ in range(60)]
    assert all(len(ids) == 4 and len(set(ids)) == 1 for ids in drawn)
    assert {ids[0] for ids in drawn} == set(range(9))
    assert clip_indices.still(9, 4, None) == [4] * 4
    assert clip_indices.test_stills(10, 2, 2) == [[2, 2], [7, 7]]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("motion")
    synthesise("video", folder / "clips", count=40, size=32)
    recipe = config.load("video/videomae2-tiny-motion", smoke=True)
    recipe = config.with_overrides(recipe, {"data.source": str(folder / "clips")})
    train(recipe, folder / "run", quiet=True)
    return folder / "run"


@pytest.mark.parametrize("sampling", ["clip", "still", "dense"])
def test_attentive_probe_of_clips(run: Path, tmp_path: Path, sampling: str) -> None:
    resolved = config.load(str(run / "config.yaml"))
    keys = [f"eval.opposites={MOTIONS}", f"augment.sampling={sampling}"]
    if sampling == "dense":
        keys += ["augment.joined_clips=2", "augment.test_crops=2", "model.pooler.kind=blocks"]
        keys += ["model.pooler.depth=2", "model.pooler.heads=4"]
    recipe = compose(resolved, "", "attentive-probe", overrides=keys, smoke=True)
    assert recipe.name == "video/tiny-attentive"
    result = evaluate.trained_probe(run, recipe, tmp_path, baselines=True, quiet=True)
    table = result["direction_accuracy"]
    assert None not in (table["pretrained"], table["random_init"])
    assert table["majority"] is None  # it knows no direction
    assert set(result["ahead"]["random_init"]) <= {"0", "1"}
