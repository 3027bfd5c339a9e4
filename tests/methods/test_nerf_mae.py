"""NeRF-MAE beyond its goldens: masks, padding, guards, the light decoder, the published names."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from mimsuite.batch import Batch
from mimsuite.config.keys.volume import Swin3DSection, VolumeMaskSection
from mimsuite.masking import CubeSampler
from mimsuite.methods import build
from mimsuite.methods.nerf_mae import NeRFMAE, NeRFMAERecipe
from mimsuite.noise import Noise
from mimsuite.targets.radiance import RadianceTarget, opacity
from mimsuite.train.step import run_method

SIZES = {
    "resolution": 32,
    "width": 6,
    "depths": [1, 2, 1, 1],
    "heads": [1, 2, 2, 3],
    "window": 2,
    "drop_path": 0.0,
}


def recipe(**changes: Any) -> NeRFMAERecipe:
    document: dict[str, Any] = {
        "recipe": {"modality": "grids"},
        "method": {"name": "nerf-mae"},
        "model": {"encoder": SIZES, "decoder": {"kind": changes.pop("decoder", "unet")}},
        "mask": {"ratio": 0.5, "cube": 2, **changes.pop("mask", {})},
        "target": changes.pop("target", {}),
        "optim": {"lr": 1e-3},
        "schedule": {"epochs": 1},
        "train": {"global_batch": 2},
    }
    assert not changes
    return NeRFMAERecipe.model_validate(document)


def scenes(*sizes: tuple[int, int, int]) -> Batch:
    torch.manual_seed(0)
    whole = torch.zeros(len(sizes), 4, 32, 32, 32)
    for row, (x, y, z) in enumerate(sizes):
        whole[row, :, :x, :y, :z] = torch.rand(4, x, y, z)
    views = {"grid": whole, "size": torch.tensor(sizes)}
    return Batch(views, torch.arange(len(sizes)), [str(i) for i in range(len(sizes))])


def made(section: NeRFMAERecipe) -> NeRFMAE:
    torch.manual_seed(1)
    method = build(section)
    assert isinstance(method, NeRFMAE)
    return method


@given(
    st.integers(1, 9), st.integers(1, 9), st.integers(1, 9), st.integers(1, 4), st.floats(0.05, 0.9)
)
def test_cubes_are_masked_whole_and_remainders_never(
    a: int, b: int, c: int, cube: int, ratio: float
) -> None:
    sampler = CubeSampler(VolumeMaskSection(ratio=ratio, cube=cube))
    grid, batch = (a, b, c), 3
    mask = sampler.sample(Noise(0, 0, torch.arange(batch)), grid)
    dense = mask.dense().view(batch, a, b, c)
    cubes = (a // cube) * (b // cube) * (c // cube)
    assert mask.masked.shape[1] == round(cubes * ratio) * cube**3
    whole = [side // cube * cube for side in grid]
    assert not dense[:, whole[0] :].any()
    assert not dense[:, :, whole[1] :].any()
    assert not dense[:, :, :, whole[2] :].any()
    for x in range(0, whole[0], cube):
        for y in range(0, whole[1], cube):
            for z in range(0, whole[2], cube):
                one = dense[:, x : x + cube, y : y + cube, z : z + cube].flatten(1)
                assert bool((one.all(1) | ~one.any(1)).all())


def test_bernoulli_masks_are_one_for_the_batch_and_vary_by_step() -> None:
    sampler = CubeSampler(VolumeMaskSection(ratio=0.75, cube=4, draw="bernoulli"))
    counts = []
    for step in range(200):
        mask = sampler.sample(Noise(3, step, torch.tensor([5, 9])), (16, 16, 16))
        assert torch.equal(mask.masked[0], mask.masked[1])
        counts.append(mask.masked.shape[1] / 64)
    mean, deviation = 0.75 * 64, math.sqrt(64 * 0.75 * 0.25)
    assert abs(sum(counts) / len(counts) - mean) < 4 * deviation / math.sqrt(len(counts))
    assert min(counts) < mean < max(counts)


@pytest.mark.parametrize("decoder", ["unet", "light"])
def test_every_trained_parameter_learns(decoder: str) -> None:
    method = made(recipe(decoder=decoder)).train()
    batch = scenes((32, 30, 20), (20, 32, 9))
    output = run_method(method, batch, Noise(0, 0, batch.index))
    output.loss.backward()
    assert output.prediction is not None
    assert output.prediction.shape == (2, 4, 32, 32, 32)
    idle = [
        name
        for name, parameter in method.named_parameters()
        if parameter.requires_grad and (parameter.grad is None or not parameter.grad.abs().sum())
    ]
    # Behind instance norms without affine parameters, biases of convolutions have no effect.
    assert all(name.endswith(".bias") for name in idle), idle


def test_light_decoder_puts_voxels_where_their_token_is() -> None:
    method = made(recipe(decoder="light")).eval()
    out = method.decoder.out
    assert isinstance(out, torch.nn.Conv3d)
    with torch.no_grad():
        out.weight.zero_()
        out.bias.copy_(torch.arange(4 * 64).float())
    batch = scenes((32, 32, 32))
    prediction = run_method(method, batch, Noise(0, 0, batch.index)).prediction
    assert prediction is not None
    cube = torch.arange(4 * 64).float().view(4, 4, 4, 4)
    assert torch.equal(prediction[0], cube.repeat(1, 8, 8, 8))


def test_padding_is_not_scored_and_empty_scenes_give_no_nan() -> None:
    batch = scenes((32, 32, 32))
    target = RadianceTarget(recipe().target)
    everywhere = torch.ones(1, 1, 32, 32, 32, dtype=torch.bool)
    prediction = torch.randn(1, 4, 32, 32, 32)
    valid = everywhere.clone()
    valid[..., 16:] = False
    full = target.loss(prediction, batch.views["grid"], everywhere, valid)
    changed = prediction.clone()
    changed[:, 3, ..., 16:] = 9.0
    assert torch.equal(
        full.opacity, target.loss(changed, batch.views["grid"], everywhere, valid).opacity
    )
    empty = target.loss(prediction, torch.zeros(1, 4, 32, 32, 32), ~everywhere, valid)
    assert float(empty.total) == 0.0
    size = torch.tensor([[5, 7, 9]])
    inside = made(recipe()).valid(Batch(batch.views | {"size": size}, batch.index, ["0"]))
    assert int(inside.sum()) == 5 * 7 * 9
    assert bool(inside[0, 0, 4, 6, 8])


def test_colour_region_of_masked_voxels_only() -> None:
    grid = scenes((32, 32, 32)).views["grid"]
    prediction = torch.randn(1, 4, 32, 32, 32)
    masked = torch.zeros(1, 1, 32, 32, 32, dtype=torch.bool)
    masked[:, :, :16] = True
    target = RadianceTarget(recipe(target={"rgb_region": "occupied-masked"}).target)
    loss = target.loss(prediction, grid, masked, ~masked | masked).colour
    occupied = (grid[:, 3:] > 0.01) & masked
    error = ((prediction - grid)[:, :3] ** 2).sum(1, keepdim=True)
    assert torch.allclose(loss, error[occupied].mean())


def test_opacity_of_overflowing_and_negative_densities() -> None:
    density = torch.tensor([-200.0, 0.0, 5.0, 200.0, 1e30])
    assert torch.allclose(
        opacity(density, "log"),
        torch.tensor([0.0, 0.00995, 0.77330, 1.0, 1.0]),
        atol=1e-4,
    )
    assert torch.allclose(
        opacity(torch.tensor([-1.0, 0.0, 100.0, 1e30]), "linear", 0.01),
        torch.tensor([0.0, 0.0, 0.63212, 1.0]),
        atol=1e-4,
    )
    assert opacity(torch.tensor([-0.5, 0.5, 2.0]), "alpha").tolist() == [0.0, 0.5, 1.0]


def test_published_names_come_back() -> None:
    method = made(recipe())
    published = method.export_reference()
    for name in ("stages.0.0.norm1.weight", "stages.1.0.reduction.weight", "stages.1.2.mlp.3.bias"):
        assert name in published
    back = NeRFMAE.import_reference(published)
    assert back.keys() == method.state_dict().keys()


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"resolution": 48}, "resolution 48 must be a multiple of 32 voxels"),
        ({"width": 8}, "width 8 must be a multiple of 6"),
        ({"heads": [1, 2, 5, 3]}, "heads 5 of stage 3 do not divide its width 24"),
    ],
)
def test_sizes_that_do_not_line_up(changes: dict[str, Any], fault: str) -> None:
    with pytest.raises(ValidationError, match=fault):
        Swin3DSection.model_validate(SIZES | changes)


def test_a_mask_of_nothing_or_everything_is_refused() -> None:
    with pytest.raises(ValidationError, match=r"mask\.ratio 0\.001 masks 0 of 64 cubes"):
        recipe(mask={"ratio": 0.001})
