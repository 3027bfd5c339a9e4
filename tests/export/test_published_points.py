"""Checkpoints of Point-MAE and Point-CMAE as their training loops write them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch

TESTS = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(TESTS)]
from golden_cases import stored, tensors  # noqa: E402

from mimsuite.checkpoints import open_model  # noqa: E402
from mimsuite.checkpoints.initialise import initialise  # noqa: E402
from mimsuite.checkpoints.shapes import Hints  # noqa: E402
from mimsuite.errors import UserError  # noqa: E402
from mimsuite.methods import build  # noqa: E402

HEADS = Hints(heads=4, decoder_heads=4)


def checkpoint(case: str, path: Path, prefix: str = "module.") -> Path:
    """The state of a golden case in the container of the published code."""
    state = {
        prefix + name.removeprefix("state."): tensor
        for name, tensor in tensors(case).items()
        if name.startswith("state.")
    }
    extras = {"optimizer": {}, "epoch": 300, "metrics": {}, "best_metrics": {}}
    torch.save({"base_model": state, **extras}, path)
    return path


@pytest.mark.parametrize(
    ("case", "method", "decoder"),
    [
        ("mae_a", "point-mae", True),
        ("cmae_a", "point-cmae", True),
        ("pcp_a", "pcp-mae", True),
        ("pcp_cls_a", "point-classify", False),
        ("cls_a", "point-classify", False),
        ("cls_linear_a", "point-classify", False),
        ("seg_a", "point-segment", False),
    ],
)
@pytest.mark.parametrize("prefix", ["", "module."])
def test_published_checkpoints_open(
    case: str, method: str, decoder: bool, prefix: str, tmp_path: Path
) -> None:
    assert stored(case).exists()
    hints = Hints(heads=6) if case == "seg_a" else HEADS
    opened = open_model(checkpoint(case, tmp_path / "model.pth", prefix), hints)
    recipe: Any = opened.resolved.recipe
    assert recipe.method.name == method
    assert opened.has_decoder == decoder
    assert recipe.model.encoder.width == 48
    assert opened.method.export_reference().keys() == {
        name.removeprefix("state.") for name in tensors(case) if name.startswith("state.")
    }


def test_a_pretrained_encoder_goes_into_a_classifier(tmp_path: Path) -> None:
    path = checkpoint("cmae_a", tmp_path / "model.pth")
    pretrained = open_model(path, HEADS)
    classified = open_model(checkpoint("cls_a", tmp_path / "cls.pth"), HEADS)
    method = build(classified.resolved.recipe)
    lines = initialise(method, path)
    assert "cls: fresh" in lines
    assert any(line.startswith("not taken: decoder") and "views" in line for line in lines)
    ours, theirs = method.encoder.state_dict(), pretrained.method.encoder.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_an_encoder_of_coded_centres_goes_into_its_classifier_and_into_no_other(
    tmp_path: Path,
) -> None:
    path = checkpoint("pcp_a", tmp_path / "model.pth")
    classified = open_model(checkpoint("pcp_cls_a", tmp_path / "cls.pth"), HEADS)
    method = build(classified.resolved.recipe)
    lines = initialise(method, path)
    assert "cls: fresh" in lines
    assert any(line.startswith("not taken:") and "mask_position" in line for line in lines)
    ours, theirs = method.encoder.state_dict(), open_model(path, HEADS).method.encoder.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    other = open_model(checkpoint("cls_a", tmp_path / "other.pth"), HEADS)
    with pytest.raises(UserError, match=r"model\.encoder\.positions=sincos"):
        initialise(build(other.resolved.recipe), path)


def test_other_sizes_are_named(tmp_path: Path) -> None:
    path = checkpoint("cmae_a", tmp_path / "model.pth")
    recipe = open_model(path, HEADS).resolved.recipe
    wider = recipe.model.encoder.model_copy(update={"width": 64})
    model = recipe.model.model_copy(update={"encoder": wider})
    with pytest.raises(UserError, match=r"model\.encoder\.width=48"):
        initialise(build(recipe.model_copy(update={"model": model})), path)
