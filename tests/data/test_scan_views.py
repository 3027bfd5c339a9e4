"""Crops of scans: where they lie, what their numbers mean, padding, repeats."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from mimsuite.config.keys.scans import CubeViTSection, ScanAugmentSection
from mimsuite.data.scans.decode import ScanDecoder
from mimsuite.data.scans.packed import pack
from mimsuite.data.scans.views import ScanViews
from mimsuite.data.scans.volume import Volume
from mimsuite.models import CubeViT


def views(crop: Any = 16, **augment: Any) -> ScanViews:
    given = {"spacing": 1.0, "intensity": {"kind": "window", "low": 0, "high": 100}} | augment
    encoder = CubeViTSection(crop=crop, patch_size=8, width=24, depth=1, heads=4)
    recipe: Any = SimpleNamespace(
        augment=ScanAugmentSection(**given), model=SimpleNamespace(encoder=encoder)
    )
    return ScanViews(recipe)


def scan(values: np.ndarray, spacing: float = 1.0) -> Any:
    return ScanDecoder()(pack(Volume(values, (spacing,) * 3), "float32"))


def block() -> np.ndarray:
    """A bright block in the dark."""
    values = np.zeros((60, 50, 40), np.float32)
    values[20:40, 10:30, 5:25] = 50
    return values


def test_crops_lie_in_the_foreground_and_are_drawn_by_the_generator() -> None:
    for number in range(10):
        crop = views().train(scan(block()), np.random.default_rng(number))["scan"]
        assert crop.shape == (1, 1, 16, 16, 16)
        assert torch.all(crop == 0.5)
    several = views(repeats=3, foreground=False).train(scan(block()), np.random.default_rng(0))
    again = views(repeats=3, foreground=False).train(scan(block()), np.random.default_rng(0))
    assert several["scan"].shape == (3, 1, 16, 16, 16)
    assert torch.equal(several["scan"], again["scan"])
    assert not torch.equal(several["scan"][0], several["scan"][1])


def test_intensities_by_window_percentiles_or_none() -> None:
    ramp = np.linspace(-100, 300, 16**3, dtype=np.float32).reshape(16, 16, 16)
    window = views(foreground=False).evaluate(scan(ramp))["scan"][0, 0].numpy()
    np.testing.assert_allclose(window, np.clip(ramp / 100, 0, 1), atol=1e-6)
    rule = {"kind": "percentiles", "low": 10, "high": 90}
    share = views(foreground=False, intensity=rule).evaluate(scan(ramp))["scan"][0, 0].numpy()
    low, high = np.percentile(ramp, [10, 90])
    np.testing.assert_allclose(share, np.clip((ramp - low) / (high - low), 0, 1), atol=1e-3)
    plain = views(foreground=False, intensity={"kind": "none"}).evaluate(scan(ramp))["scan"]
    np.testing.assert_array_equal(plain[0, 0].numpy(), ramp)


def test_small_scans_are_padded_evenly_and_others_resampled() -> None:
    values = np.full((10, 40, 10), 80, np.float32)
    crop = views(intensity={"kind": "none"}, foreground=False).evaluate(scan(values))["scan"][0, 0]
    assert torch.all(crop == 80)  # the darkest half percent is as bright
    values[:, :20] = 20
    crop = views(intensity={"kind": "none"}, foreground=False).evaluate(scan(values))["scan"][0, 0]
    assert torch.all(crop[:3] == 20)
    assert torch.all(crop[13:] == 20)
    assert torch.all(crop[3:13, 8:, 3:13] == 80)
    coarse = views(intensity={"kind": "none"}).evaluate(scan(block(), 2.0))["scan"]
    assert torch.all(coarse == 50)


def test_positions_tell_the_axes_apart() -> None:
    section = CubeViTSection(crop=(16, 24, 32), patch_size=8, width=24, depth=1, heads=4)
    table = CubeViT(section).pos_embed.reshape(2, 3, 4, 24)
    assert len(torch.unique(table.reshape(-1, 24), dim=0)) == 24
    assert torch.equal(table[0, :, :, 8:16], table[0, :1, :1, 8:16].expand(3, 4, -1))
