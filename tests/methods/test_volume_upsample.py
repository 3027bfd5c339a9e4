"""Super-resolution: sizes, the loss, bad input."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from pydantic import ValidationError

from mimsuite import config
from mimsuite.batch import Batch
from mimsuite.errors import DataError
from mimsuite.methods import build
from mimsuite.methods.volume_upsample import VolumeUpsampleRecipe, VolumeUpsampling
from mimsuite.models.volume_upsampler import VolumeUpsampler
from mimsuite.noise import Noise
from mimsuite.targets.radiance import colour_error
from mimsuite.train.step import run_method


def recipe(fine: int = 40, **encoder: Any) -> VolumeUpsampleRecipe:
    sizes = {"resolution": 32, "patch_size": 2, "width": 6, "depths": [1] * 4, "window": 2}
    return VolumeUpsampleRecipe.model_validate(
        {
            "recipe": {"modality": "grids"},
            "method": {"name": "volume-upsample"},
            "model": {
                "encoder": sizes | {"heads": [1, 2, 2, 3], "drop_path": 0.0} | encoder,
                "widths": [16, 8, 8, 6],
            },
            "target": {"resolution": fine},
            "optim": {"lr": 1e-3},
            "schedule": {"epochs": 1},
            "train": {"global_batch": 2},
        }
    )


def made() -> VolumeUpsampling:
    torch.manual_seed(1)
    method = build(recipe())
    assert isinstance(method, VolumeUpsampling)
    return method


def scenes() -> Batch:
    torch.manual_seed(0)
    size = {"size": torch.full((2, 3), 32), "fine_size": torch.full((2, 3), 40)}
    views = {"grid": torch.rand(2, 4, 32, 32, 32), "fine": torch.rand(2, 4, 40, 40, 40)}
    return Batch.of_views(views | size)


@pytest.mark.parametrize(("name", "side"), [("upsample-256", 64), ("upsample-384", 96)])
def test_both_published_sizes_can_be_built(name: str, side: int) -> None:
    published = config.load(f"volume/{name}").recipe
    with torch.device("meta"):
        encoder, widths = published.model.encoder, published.model.widths
        head = VolumeUpsampler(encoder, widths, published.target.resolution)
    assert head.sides == [10, 20, 40, side]
    shapes = [tuple(head.get_parameter(f"steps.{i}.weight").shape[:2]) for i in range(4)]
    assert shapes == [(512, 768), (256, 512), (128, 256), (64, 128)]
    assert tuple(head.out.weight.shape[:2]) == (256, 64)


def test_the_loss_counts_occupied_voxels_only() -> None:
    method, batch = made().train(), scenes()
    batch.views["fine"][:, 3, 20:] = 0.0
    output = run_method(method, batch, Noise(0, 0, batch.index))
    assert output.prediction is not None
    assert output.prediction.shape == (2, 4, 40, 40, 40)
    seen = batch.views["fine"][:, 3] > 0.01
    difference = (output.prediction - batch.views["fine"])[:, :3].permute(0, 2, 3, 4, 1)[seen]
    torch.testing.assert_close(output.loss, difference.square().mean())
    output.loss.backward()
    idle = [name for name, p in method.named_parameters() if p.requires_grad and p.grad is None]
    assert idle == []


def test_empty_scenes_give_no_nan() -> None:
    method, batch = made().train(), scenes()
    views = batch.views | {"fine": torch.zeros(2, 4, 40, 40, 40)}
    output = run_method(method, Batch.of_views(views), Noise(0, 0, batch.index))
    assert float(output.loss.detach()) == 0.0
    error, count = colour_error(torch.rand(2, 4, 3, 3, 3), torch.zeros(2, 4, 3, 3, 3), 0.01)
    assert error.tolist() == count.tolist() == [0, 0]


def test_sizes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValidationError, match=r"target\.resolution 32 must be larger"):
        recipe(32)
    with pytest.raises(ValidationError, match=r"target\.resolution 41 must be larger"):
        recipe(41)
    with pytest.raises(ValidationError, match="leaves one token in the last stage"):
        recipe(patch_size=4)
    with pytest.raises(DataError, match="needs the view 'fine'"):
        made().check(Batch.of_views({"grid": torch.rand(1, 4, 32, 32, 32)}))
