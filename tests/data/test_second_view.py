"""`augment.second_view`: the same crop, mirrored alike, at another size; colour jitter."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from mimsuite import config
from mimsuite.config.keys.shared import AugmentSection
from mimsuite.data.image.augment import TrainTransform, resize
from mimsuite.data.views import views_of
from mimsuite.errors import UserError


def section(**keys: Any) -> AugmentSection:
    second = {"image_size": (24, 32)}
    return AugmentSection.model_validate(
        {"second_view": second, "interpolation": "bilinear", **keys}
    )


def gradient(height: int = 90, width: int = 120) -> Tensor:
    """Row and column can be read off the first two channels."""
    row = torch.linspace(0, 255, height)[:, None].expand(height, width)
    column = torch.linspace(0, 255, width)[None].expand(height, width)
    return torch.stack([row, column, torch.full((height, width), 128.0)]).to(torch.uint8)


@pytest.mark.parametrize("hflip", [0.0, 1.0, 0.5])
def test_both_views_show_the_same_part(hflip: float) -> None:
    transform = TrainTransform(section(hflip=hflip, crop_scale=(0.2, 0.6)), (48, 64))
    for seed in range(8):
        found = transform.views(gradient(), np.random.default_rng(seed))
        assert {name: view.shape for name, view in found.items()} == {
            "image": (3, 48, 64),
            "tokenizer": (3, 24, 32),
        }
        small = torch.nn.functional.avg_pool2d(found["image"].float(), 2)
        assert (small - found["tokenizer"].float()).abs().mean() < 2


def test_the_first_view_does_not_depend_on_the_second() -> None:
    image = gradient()
    plain = TrainTransform(section(second_view=None), (48, 64))
    both = TrainTransform(section(), (48, 64))
    for seed in range(4):
        one = plain(image, np.random.default_rng(seed))
        assert torch.equal(one, both(image, np.random.default_rng(seed)))


def test_the_second_view_is_neither_erased_nor_changed_in_colour() -> None:
    transform = TrainTransform(section(erase=1.0, hflip=0.0, crop="resize"), (48, 64))
    found = transform.views(gradient(), np.random.default_rng(0))
    plain = TrainTransform(section(erase=0.0, hflip=0.0, crop="resize"), (48, 64))
    expected = plain.views(gradient(), np.random.default_rng(0))
    assert torch.equal(found["tokenizer"], expected["tokenizer"])
    assert not torch.equal(found["image"], expected["image"])


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_lanczos_is_pils(channels: int) -> None:
    image = torch.randint(0, 256, (channels, 50, 40), dtype=torch.uint8)
    found = resize(image, (5, 3, 40, 30), (16, 12), "lanczos")
    assert found.dtype == torch.uint8
    for channel, pixels in zip(found, image[:, 5:45, 3:33], strict=True):
        expected = Image.fromarray(pixels.numpy()).resize((12, 16), Image.Resampling.LANCZOS)
        assert torch.equal(channel, torch.from_numpy(np.array(expected)))
    floats = resize(image.float() / 255, (5, 3, 40, 30), (16, 12), "lanczos")
    assert floats.dtype == torch.float32
    assert (floats * 255 - found.float()).abs().max() < 80  # it overshoots where bytes are clipped


def test_jitter_changes_colours_alike_in_both_views() -> None:
    flat = torch.full((3, 60, 80), 100, dtype=torch.uint8)
    transform = TrainTransform(section(jitter=0.4, hflip=0.0), (48, 64))
    seen = set()
    for seed in range(6):
        found = transform.views(flat, np.random.default_rng(seed))
        value = int(found["image"][0, 0, 0])
        assert (found["image"] == value).all()
        assert (found["tokenizer"].int() - value).abs().max() <= 1
        seen.add(value)
    assert len(seen) > 3
    again = transform.views(flat, np.random.default_rng(0))
    assert torch.equal(again["image"], transform.views(flat, np.random.default_rng(0))["image"])
    with pytest.raises(UserError, match=r"augment\.jitter"):
        transform.views(flat[:1], np.random.default_rng(0))


def test_the_recipe_tells_the_shapes_of_its_views() -> None:
    views = views_of(config.load("image/cae-base-in1k").recipe)
    assert views.shapes() == {"image": (3, 224, 224), "tokenizer": (3, 112, 112)}
    found = views.train(gradient(300, 400), np.random.default_rng(0))
    assert {name: tuple(view.shape) for name, view in found.items()} == views.shapes()
