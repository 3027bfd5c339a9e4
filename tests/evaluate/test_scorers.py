"""Scorers of what is no class: right answers, figures by hand, intervals, whole commands."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from mimsuite import config, evaluate
from mimsuite.batch import Batch
from mimsuite.checkpoints import open_model
from mimsuite.config import Resolved
from mimsuite.data import open_split
from mimsuite.data.synthetic.synth import synthesise
from mimsuite.errors import DataError, UserError
from mimsuite.evaluate.scoring.boxes import Scene, average_precision
from mimsuite.evaluate.scoring.classes import ClassScorer
from mimsuite.evaluate.scoring.detection import BoxScorer, judge
from mimsuite.evaluate.scoring.scorer import Figure, paired_figures, scorer_of
from mimsuite.evaluate.scoring.super_resolution import FinerScorer, JudgedGrid, psnr
from mimsuite.evaluate.scoring.voxels import VoxelScorer, label_figures
from mimsuite.methods import build
from mimsuite.train.estimate import estimate
from mimsuite.train.run import train

TINY = {
    "model.encoder.width": 6,
    "model.encoder.depths": [1, 1, 1, 1],
    "model.encoder.heads": [1, 2, 2, 3],
    "data.workers": 0,
    "schedule.warmup_epochs": 0,
    "schedule.epochs": 1,
}
RECIPES = ["volume/detect-tiny-rooms", "volume/label-tiny-rooms", "volume/upsample-tiny-rooms"]
BOXES = torch.tensor([[8.0, 9, 5, 6, 10, 8, 0.3], [22, 21, 8, 12, 9, 15, -0.6]])


@pytest.fixture(scope="module")
def rooms(tmp_path_factory: pytest.TempPathFactory) -> str:
    out = tmp_path_factory.mktemp("rooms") / "furniture"
    synthesise("grids", out, count=24, size=32, parts=True)
    return str(out)


def tiny(name: str, rooms: str, **keys: Any) -> Resolved:
    return config.with_overrides(config.load(name), TINY | {"data.source": rooms} | keys)


def test_a_scorer_for_everything_that_is_learnt() -> None:
    kinds = [type(scorer_of(config.load(name))) for name in RECIPES]
    assert kinds == [BoxScorer, VoxelScorer, FinerScorer]
    assert type(scorer_of(config.load("image/mae-tiny-finetune"))) is ClassScorer
    for name in RECIPES:
        scorer = scorer_of(config.load(name))
        assert scorer.main_figure in scorer.figures


def test_perfect_boxes_score_one() -> None:
    perfect = [judge(Scene(BOXES, torch.tensor([0.9, 0.8]), BOXES))] * 3
    scorer = scorer_of(config.load("volume/detect-tiny-rooms"))
    assert list(scorer.measure(perfect).values()) == pytest.approx([1.0] * 4)


def test_average_precision_by_hand() -> None:
    """A right proposal, a wrong one, the same again, then the other box: 1/2 x 1 + 1/2 x 2/4."""
    away = BOXES[:1] + torch.tensor([100.0, 0, 0, 0, 0, 0, 0])
    proposals = torch.cat([BOXES[:1], away, BOXES[:1], BOXES[1:]])
    scene = Scene(proposals, torch.tensor([0.9, 0.8, 0.7, 0.6]), BOXES)
    assert average_precision([scene], 0.5) == pytest.approx(0.75)
    empty = Scene(BOXES[:0], torch.zeros(0), BOXES)
    assert average_precision([scene, empty], 0.5) == pytest.approx(0.375)
    scorer: Any = scorer_of(config.load("volume/detect-tiny-rooms"))
    figures = scorer.report([judge(scene), judge(empty)], None)
    assert figures["recall_50"] == 1.0  # as published, of scenes that have proposals
    assert figures["scenes_without_proposals"] == 1
    assert set(scorer.measure([judge(empty)]).values()) == {0.0}


def test_perfect_labels_score_one(rooms: str) -> None:
    resolved = tiny("volume/label-tiny-rooms", rooms)
    method: Any = build(resolved.recipe)
    scorer: Any = scorer_of(resolved)
    labels = torch.randint(6, (2, 4, 4, 4))
    logits = torch.nn.functional.one_hot(labels, 6).movedim(-1, 1).float()
    method.voxel_logits = lambda grids: logits
    judged = scorer.judge(method, Batch.of_views({"grid": logits, "labels": labels}))
    assert len(judged) == 2
    assert scorer.measure(judged) == {"miou": 1.0, "macc": 1.0, "accuracy": 1.0}
    assert set(scorer.report(judged, None)["per_label"]) == set("12345")


def test_label_figures_by_hand() -> None:
    counts = torch.tensor([[9, 2, 1, 0], [9, 3, 2, 0], [9, 4, 1, 0]])  # right, found, true
    figures = label_figures(counts)
    assert figures["miou"] == pytest.approx((2 / 5 + 1 / 2 + 0) / 3)
    assert figures["macc"] == pytest.approx((2 / 4 + 1 / 1 + 0) / 3)
    assert figures["accuracy"] == pytest.approx(3 / 5)


def test_signal_to_noise() -> None:
    assert psnr(0.01) == pytest.approx(20.0)
    assert psnr(0.0) == 100.0
    scorer = scorer_of(config.load("volume/upsample-tiny-rooms"))
    figures = scorer.measure([JudgedGrid(0.01, 0.1), JudgedGrid(0.001, 0.1)])
    assert figures == {"psnr": pytest.approx(25.0), "over_trilinear": pytest.approx(15.0)}
    fine = torch.rand(1, 4, 8, 8, 8)
    views = {"grid": fine[..., ::2, ::2, ::2], "fine": fine}
    sizes = {"size": torch.full((1, 3), 4), "fine_size": torch.full((1, 3), 8)}
    method = SimpleNamespace(super_resolution=lambda grids: fine)
    (judged,) = scorer.judge(method, Batch.of_views(views | sizes))
    assert judged.error == 0.0
    assert judged.trilinear > 0.0
    assert Figure("psnr", "PSNR", "dB").text(20) == "20.00 dB"


def test_intervals_of_figures_hold_the_difference() -> None:
    ours, theirs = [0.9, 0.8, 0.7, 0.9], [0.5, 0.6, 0.1, 0.2]
    found = paired_figures(lambda rows: {"mean": sum(rows) / len(rows)}, ours, theirs)["mean"]
    assert found.difference == pytest.approx(0.475)
    assert 0.2 <= found.low < found.difference < found.high <= 0.7
    with pytest.raises(ValueError, match="not paired: 4 and 3"):
        paired_figures(lambda rows: {}, ours, theirs[:3])


@pytest.mark.parametrize("name", RECIPES)
def test_costs_can_be_estimated(name: str, rooms: str) -> None:
    counted = estimate(tiny(name, rooms).recipe)
    assert counted.trained < counted.parameters  # positions are fixed
    assert counted.flops > counted.forward_flops > 0


@pytest.fixture(scope="module")
def pretrained(rooms: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("pretrained") / "run"
    return train(tiny("volume/nerf-mae-tiny-rooms", rooms), out, quiet=True).run_dir


@pytest.mark.parametrize("name", RECIPES[:2])
def test_from_a_pretrained_run_to_figures(
    name: str, pretrained: Path, rooms: str, tmp_path: Path
) -> None:
    """Tuning with its baseline, and scoring again what was tuned."""
    small = ["data.workers=0", "data.limit=8", "schedule.epochs=1", "schedule.warmup_epochs=0"]
    small += ["model.head.width=16"] if "detect" in name else []
    opened = config.load(pretrained / "config.yaml")
    composed = evaluate.compose(opened, name, "finetune", rooms, small)
    assert composed.recipe.model.encoder.width == 6
    result = evaluate.finetune(pretrained, composed, tmp_path / "out", baselines=True, quiet=True)
    for figure in (figure["name"] for figure in result["figures"]):
        interval = result["intervals"]["from_scratch"][figure]
        gain = result[figure]["pretrained"] - result[figure]["from_scratch"]
        assert interval["difference"] == pytest.approx(gain)
    again = scored_again(tmp_path / "out" / "pretrained")
    assert again[result["main"]] == pytest.approx(result[result["main"]]["pretrained"])


def scored_again(run: Path) -> dict[str, Any]:
    opened = open_model(str(run))
    scorer, source = scorer_of(opened.resolved), open_split(opened.resolved.recipe, "test")
    return scorer.report(scorer.collect(opened.method, source), source)


def test_methods_and_scenes_that_cannot_be_scored(rooms: str, tmp_path: Path) -> None:
    resolved = tiny("volume/nerf-mae-tiny-rooms", rooms)
    scorer = scorer_of(tiny("volume/detect-tiny-rooms", rooms))
    with pytest.raises(UserError, match=r"no head to score \('detect'\)"):
        scorer.collect(build(resolved.recipe), open_split(resolved.recipe, "test"))
    synthesise("grids", tmp_path / "plain", count=24, size=32)
    plain = tiny("volume/detect-tiny-rooms", str(tmp_path / "plain"))
    with pytest.raises(DataError, match="without boxes"):
        train(plain, tmp_path / "run", quiet=True)
