"""Patches of images and back."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mimsuite.tokens import patchify, unpatchify

quick = settings(max_examples=60, deadline=None)
SIDE = st.integers(1, 4)


@quick
@given(SIDE, SIDE, st.integers(1, 4), st.integers(1, 5), st.integers(1, 3))
def test_unpatchify_inverts_patchify(
    rows: int, columns: int, patch: int, channels: int, batch: int
) -> None:
    images = torch.randn(batch, channels, rows * patch, columns * patch)
    patches = patchify(images, patch)
    assert patches.shape == (batch, rows * columns, patch * patch * channels)
    assert torch.equal(unpatchify(patches, patch, (rows, columns)), images)


@quick
@given(SIDE, st.integers(2, 4), st.integers(1, 4), st.integers(1, 4), st.integers(0, 99))
def test_only_the_patches_asked_for(
    rows: int, columns: int, patch: int, channels: int, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(3, channels, rows * patch, columns * patch, generator=generator)
    ids = torch.rand(3, rows * columns, generator=generator).argsort(1)[:, : rows * columns // 2]
    whole = patchify(images, patch)
    expected = torch.stack([whole[sample, ids[sample]] for sample in range(3)])
    assert torch.equal(patchify(images, patch, ids), expected)


def test_order_of_patches_and_of_pixels() -> None:
    """Raster order of patches; inside (row, column, channel), channel fastest."""
    image = torch.arange(2 * 4 * 6).reshape(1, 2, 4, 6)
    patches = patchify(image, 2)
    assert patches.shape == (1, 6, 8)
    by_hand = [
        int(image[0, channel, row, column])
        for row in (2, 3)
        for column in (4, 5)
        for channel in (0, 1)
    ]
    assert patches[0, 5].tolist() == by_hand


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float16, torch.float64])
def test_dtype_stays(dtype: torch.dtype) -> None:
    images = torch.ones(1, 3, 4, 4).to(dtype)
    assert patchify(images, 2).dtype == dtype
    assert unpatchify(patchify(images, 2), 2, (2, 2)).dtype == dtype


def test_gradient_reaches_only_the_pixels_asked_for() -> None:
    images = torch.zeros(1, 1, 4, 4, requires_grad=True)
    patchify(images, 2, torch.tensor([[3]])).sum().backward()
    expected = torch.zeros(1, 1, 4, 4)
    expected[..., 2:, 2:] = 1
    assert torch.equal(images.grad, expected)


@pytest.mark.parametrize("size", [(5, 4), (4, 6)])
def test_a_side_that_does_not_divide_is_named(size: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match=f"an image of {size[0]} x {size[1]}"):
        patchify(torch.zeros(1, 3, *size), 4)
