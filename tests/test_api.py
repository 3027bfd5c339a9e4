from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import mimsuite
from mimsuite import config
from mimsuite.api import Model
from mimsuite.batch import Batch
from mimsuite.errors import UserError
from mimsuite.masking import TokenMask
from mimsuite.methods import build
from mimsuite.train import checkpoint


def write_run(folder: Path, recipe: str = "image/mae-vitb16-in1k", **changes: Any) -> Path:
    keys = {
        "model.encoder.image_size": [16, 24],
        "model.encoder.patch_size": 8,
        "model.encoder.width": 16,
        "model.encoder.depth": 2,
        "model.encoder.heads": 2,
        "augment.mean": [0.1, 0.2, 0.3],
        "augment.std": [0.4, 0.5, 0.6],
    }
    if "finetune" in recipe:
        keys["target.classes"] = 3
    else:
        keys |= {"model.decoder.width": 16, "model.decoder.depth": 1, "model.decoder.heads": 2}
    keys |= {key.replace("__", "."): value for key, value in changes.items()}
    resolved = config.with_overrides(config.load(recipe), keys, "test")
    torch.manual_seed(0)
    state = build(resolved.recipe).state_dict()
    checkpoint.save(folder / "checkpoints", checkpoint.CheckpointState(5, resolved.document, state))
    return folder


@pytest.fixture
def model(tmp_path: Path) -> Model:
    return mimsuite.load(write_run(tmp_path / "run"))


@pytest.fixture
def pixels() -> torch.Tensor:
    return torch.randint(0, 256, (4, 3, 16, 24), dtype=torch.uint8)


def test_load_tells_what_it_is(model: Model) -> None:
    assert model.step == 5
    assert model.has_decoder
    assert repr(model).startswith("Model(mae from ")
    assert not model.method.training


def test_uint8_is_normalised_and_floats_are_not(model: Model, pixels: torch.Tensor) -> None:
    mean = torch.tensor([0.1, 0.2, 0.3]).view(3, 1, 1)
    std = torch.tensor([0.4, 0.5, 0.6]).view(3, 1, 1)
    floats = (pixels / 255 - mean) / std
    raw, ready = model.encode(pixels), model.encode(floats)
    assert raw.cls.shape == (4, 1, 16)
    assert raw.tokens.shape == (4, 6, 16)
    assert torch.allclose(raw.tokens, ready.tokens, atol=1e-5)
    assert not raw.tokens.requires_grad


def test_a_batch_and_its_images_are_the_same_and_stay_as_they_are(
    model: Model, pixels: torch.Tensor
) -> None:
    batch = Batch.of_images(pixels)
    assert torch.equal(model.encode(batch).cls, model.encode(pixels).cls)
    assert batch.image.dtype is torch.uint8


def test_features_can_be_trained_on(model: Model, pixels: torch.Tensor) -> None:
    head = torch.nn.Linear(16, 2)
    head(model.encode(pixels).pool("mean")).sum().backward()
    assert head.weight.grad is not None


def test_layers_and_other_sizes(model: Model) -> None:
    features = model.encode(torch.randn(1, 3, 32, 32), layers=(1, 2))
    assert features.layers.keys() == {1, 2}
    assert features.tokens.shape == (1, 16, 16)


def test_reconstruct_keeps_what_is_visible(model: Model, pixels: torch.Tensor) -> None:
    images = torch.randn(2, 3, 16, 24)
    mask = TokenMask.from_removed(torch.tensor([[0, 1, 1, 1, 0, 1]]).repeat(2, 1), (2, 3))
    pasted = model.reconstruct(images, mask=mask)
    assert pasted.shape == images.shape
    assert torch.equal(pasted[:, :, :8, :8], images[:, :, :8, :8])
    assert torch.equal(pasted[:, :, 8:, 8:16], images[:, :, 8:, 8:16])
    assert not torch.equal(pasted[:, :, :8, 8:], images[:, :, :8, 8:])
    predicted = model.reconstruct(images, mask=mask, paste=False)
    assert torch.equal(predicted[:, :, :8, 8:], pasted[:, :, :8, 8:])
    assert not torch.equal(predicted[:, :, :8, :8], images[:, :, :8, :8])


def test_reconstruct_is_the_picture_that_panels_show(model: Model) -> None:
    from mimsuite.noise import Noise

    images = torch.randn(2, 3, 16, 24)
    batch = Batch.of_images(images)
    noise = Noise(9, 0, batch.index)
    masks = model.method.mask(batch, noise, ctx := model.method.prepare(batch, noise))
    with torch.no_grad():
        panels = {p.title: p.images for p in model.method.panels(batch, masks, ctx)}
    assert torch.equal(model.reconstruct(images, seed=9), panels["reconstruction + visible"])


def test_reconstruct_is_repeatable_by_seed(model: Model, pixels: torch.Tensor) -> None:
    assert torch.equal(model.reconstruct(pixels), model.reconstruct(pixels))
    assert not torch.equal(model.reconstruct(pixels), model.reconstruct(pixels, seed=1))


@pytest.mark.parametrize(
    ("shape", "fault"),
    [
        ((3, 16, 24), r"shape \(3, 16, 24\), expected \(B, 3, H, W\)"),
        ((1, 1, 16, 24), r"expected \(B, 3, H, W\)"),
        ((1, 3, 16, 25), "multiples of the patch size, 8"),
        ((1, 3, 0, 8), "multiples of the patch size"),
    ],
)
def test_images_of_the_wrong_shape(model: Model, shape: tuple[int, ...], fault: str) -> None:
    with pytest.raises(UserError, match=fault):
        model.encode(torch.zeros(shape))


def test_images_of_the_wrong_type(model: Model) -> None:
    with pytest.raises(UserError, match="expected uint8 or normalised floats"):
        model.encode(torch.zeros(1, 3, 16, 24, dtype=torch.int64))


def test_reconstruct_needs_the_trained_size_and_a_decoder(tmp_path: Path, model: Model) -> None:
    with pytest.raises(UserError, match="images are 16 x 16, the model rebuilds 16 x 24"):
        model.reconstruct(torch.zeros(1, 3, 16, 16))
    other = mimsuite.load(write_run(tmp_path / "c", "image/mae-vitb16-finetune-in1k"))
    assert not other.has_decoder
    with pytest.raises(UserError, match="holds no trained decoder"):
        other.reconstruct(torch.zeros(1, 3, 16, 24))


def test_recipes() -> None:
    assert "image/mae-vitb16-in1k" in mimsuite.recipes()


def test_importing_the_package_is_light() -> None:
    code = "import sys, mimsuite; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
