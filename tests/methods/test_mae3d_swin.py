from __future__ import annotations

from typing import Any

import pytest
import torch

from mimsuite import config
from mimsuite.batch import Batch
from mimsuite.methods import build
from mimsuite.methods.mae3d_swin import SwinMAE3D
from mimsuite.noise import Noise


def method(*keys: str) -> SwinMAE3D:
    keys = ("model.encoder.width=12", "model.encoder.heads=[1,2,4,8]", *keys)
    torch.manual_seed(0)
    found = build(config.load("volume/mae3d-swin-tiny-phantoms", list(keys)).recipe)
    assert isinstance(found, SwinMAE3D)
    return found


def step(model: SwinMAE3D, scans: torch.Tensor) -> Any:
    batch = Batch.of_views({"scan": scans})
    noise = Noise(0, 0, batch.index)
    ctx = model.prepare(batch, noise)
    return model(batch, model.mask(batch, noise, ctx), ctx)


def crops(count: int = 2) -> torch.Tensor:
    return torch.rand(count, 1, 32, 32, 32, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("loss", ["l1", "mse"])
def test_the_loss_is_of_masked_voxels_alone(loss: str) -> None:
    model, scans = method(f"target.loss={loss}"), crops()
    out = step(model, scans)
    hidden = out.masks["scan"].dense().view(2, 8, 8, 8)
    masked = hidden.repeat_interleave(4, 1).repeat_interleave(4, 2).repeat_interleave(4, 3)[:, None]
    error = out.prediction - scans
    error = error.abs() if loss == "l1" else error.square()
    assert out.loss.item() == pytest.approx(error[masked].mean().item(), rel=1e-5)
    assert out.weight.item() == masked.sum().item() == 2 * 0.75 * 32**3


def test_masked_voxels_are_not_seen() -> None:
    """Predictions do not depend on what is below the mask."""
    model, scans = method().eval(), crops()
    first = step(model, scans)
    hidden = first.masks["scan"].dense().view(2, 8, 8, 8)
    masked = hidden.repeat_interleave(4, 1).repeat_interleave(4, 2).repeat_interleave(4, 3)[:, None]
    second = step(model, torch.where(masked, 5.0, scans))
    torch.testing.assert_close(first.prediction, second.prediction)


def test_probes_read_the_last_stage() -> None:
    model = method().eval()
    features = model.encode(Batch.of_views({"scan": crops()}))
    assert features.tokens.shape == (2, 1, 96)


def test_a_ratio_that_masks_all_is_refused() -> None:
    with pytest.raises(Exception, match="masks 64 of 64 cubes"):
        config.load("volume/mae3d-swin-tiny-phantoms", ["mask.ratio=0.999"])
