"""Labels of voxels: weights, loss, what is taken from pretraining, bad input."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from pydantic import ValidationError

from mimsuite.batch import Batch
from mimsuite.errors import DataError
from mimsuite.methods import build
from mimsuite.methods.nerf_mae import NeRFMAE, NeRFMAERecipe
from mimsuite.methods.volume_label import VolumeLabeler, VolumeLabelRecipe
from mimsuite.noise import Noise
from mimsuite.targets.voxels import class_weights, voxel_counts, voxel_loss
from mimsuite.train.step import run_method

ENCODER = {
    "resolution": 32,
    "width": 6,
    "depths": [1, 2, 1, 1],
    "heads": [1, 2, 2, 3],
    "window": 2,
    "drop_path": 0.0,
}
SECTIONS: dict[str, Any] = {
    "recipe": {"modality": "grids"},
    "optim": {"lr": 1e-3},
    "schedule": {"epochs": 1},
    "train": {"global_batch": 2},
}


def recipe(**target: Any) -> VolumeLabelRecipe:
    return VolumeLabelRecipe.model_validate(
        SECTIONS
        | {
            "method": {"name": "volume-label"},
            "model": {"encoder": ENCODER},
            "target": {"labels": 4, **target},
        }
    )


def made(**target: Any) -> VolumeLabeler:
    torch.manual_seed(1)
    method = build(recipe(**target))
    assert isinstance(method, VolumeLabeler)
    return method


def scenes() -> Batch:
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(4, (2, 32, 32, 32), generator=generator, dtype=torch.uint8)
    grid = torch.rand(2, 4, 32, 32, 32, generator=generator)
    return Batch.of_views({"grid": grid, "size": torch.full((2, 3), 32), "labels": labels})


def test_rare_classes_weigh_more() -> None:
    weights = class_weights(torch.tensor([500, 30, 10, 0]))
    expected = [0, 1 / math.log(1.77), 1 / math.log(1.27), 1 / math.log(1.02)]
    torch.testing.assert_close(weights, torch.tensor(expected))


def test_the_loss_is_the_published_one() -> None:
    """There logits are multiplied by 0 where there is no class, and class 0 weighs 0."""
    logits, labels = torch.randn(2, 4, 3, 3, 3), torch.randint(4, (2, 3, 3, 3))
    weights = torch.tensor([0.0, 1, 2, 3])
    known = (labels > 0).unsqueeze(1)
    expected = F.cross_entropy(logits * known, labels, weights)
    loss, mass = voxel_loss(logits, labels, weights)
    torch.testing.assert_close(loss, expected)
    assert float(mass) == float(weights[labels].sum())
    nothing, _ = voxel_loss(logits, torch.zeros_like(labels), weights)
    assert float(nothing) == 0.0


def test_gradients_are_those_of_finite_differences() -> None:
    labels, weights = torch.randint(4, (1, 2, 2, 2)), torch.tensor([0.0, 1, 2, 3])
    logits = torch.randn(1, 4, 2, 2, 2, requires_grad=True)
    (gradient,) = torch.autograd.grad(voxel_loss(logits, labels, weights)[0], logits)
    for place in [(0, 1, 0, 0, 0), (0, 2, 1, 0, 1)]:
        moved = torch.zeros_like(logits)
        moved[place] = 1e-2
        up, down = (voxel_loss(logits.detach() + s * moved, labels, weights)[0] for s in (1, -1))
        assert float((up - down) / 2e-2) == pytest.approx(float(gradient[place]), abs=1e-3)


def test_counts_by_hand() -> None:
    found, labels = torch.tensor([[1, 2, 2, 3]]), torch.tensor([[1, 1, 2, 0]])
    right, guessed, true = voxel_counts(found.view(1, 4, 1, 1), labels.view(1, 4, 1, 1), 4)[0]
    assert right.tolist() == [0, 1, 1, 0]
    assert guessed.tolist() == [0, 1, 2, 0]
    assert true.tolist() == [0, 2, 1, 0]


def test_every_trained_parameter_learns_and_weights_are_counted() -> None:
    method, batch = made().train(), scenes()
    (line,) = method.setup(lambda: [batch])
    assert line.startswith("class weights: 0, ")
    counts = batch.views["labels"].flatten().long().bincount(minlength=4)
    assert torch.equal(method.class_weights, class_weights(counts))
    assert method.setup(None) == []
    output = run_method(method, batch, Noise(0, 0, batch.index))
    output.loss.backward()
    assert output.prediction is not None
    assert output.prediction.shape == (2, 4, 32, 32, 32)
    idle = [name for name, p in method.named_parameters() if p.requires_grad and p.grad is None]
    assert idle == []


def test_given_weights_are_kept() -> None:
    method = made(weights=[0.0, 1.0, 2.0, 3.0])
    assert method.setup(lambda: [scenes()]) == []
    assert method.class_weights.tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("decoder", ["unet", "light"])
def test_the_coarse_part_is_that_of_pretraining(decoder: str) -> None:
    pretrained = build(
        NeRFMAERecipe.model_validate(
            SECTIONS
            | {
                "method": {"name": "nerf-mae"},
                "model": {"encoder": ENCODER, "decoder": {"kind": decoder}},
                "mask": {"ratio": 0.5, "cube": 2},
                "target": {},
            }
        )
    )
    assert isinstance(pretrained, NeRFMAE)
    state, ours = pretrained.state_dict(), made().state_dict()
    adopted = made().init_aliases()
    assert all(state[theirs].shape == ours[name].shape for name, theirs in adopted.items())
    coarse = {name for name in state if name.startswith(("decoder.up4", "decoder.up3"))}
    assert coarse <= set(adopted.values())


def test_labels_that_are_none_are_refused() -> None:
    batch = scenes()
    views = batch.views | {"labels": batch.views["labels"] + 3}
    with pytest.raises(DataError, match=r"has label 6; target\.labels is 4"):
        made().check(Batch.of_views(views))
    del views["labels"]
    with pytest.raises(DataError, match="need an array 'labels'"):
        made().check(Batch.of_views(views))
    with pytest.raises(ValidationError, match="weights has 2 numbers for labels 4"):
        recipe(weights=[0.0, 1.0])
