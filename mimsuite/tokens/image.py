"""Images to patch tokens and back.

Letters: B batch, C channels, H x W pixels, p patch size, N = (H/p) * (W/p) patches.
A patch vector is (row, column, channel), channel fastest; patches are in raster order.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mimsuite.tokens.constants import constant


def patchify(images: Tensor, patch: int, ids: Tensor | None = None) -> Tensor:
    """Patch vectors of (B, C, H, W) images: (B, N, p*p*C), or only the rows ``ids`` (B, K).

    The full patch grid is a view; only the requested patches are copied.

    Raises:
        ValueError: the patch size does not divide a side.
    """
    batch, channels, height, width = images.shape
    if height % patch or width % patch:
        raise ValueError(f"patch size {patch} does not divide an image of {height} x {width}")
    rows, columns = height // patch, width // patch
    grid = images.reshape(batch, channels, rows, patch, columns, patch)
    grid = grid.permute(0, 2, 4, 3, 5, 1)  # (B, H/p, W/p, p, p, C)
    if ids is not None:
        sample = torch.arange(batch, device=images.device).unsqueeze(1)
        grid = grid[sample, ids // columns, ids % columns]  # (B, K, p, p, C)
    return grid.reshape(batch, -1, patch * patch * channels)


def unpatchify(patches: Tensor, patch: int, grid: tuple[int, int]) -> Tensor:
    """Inverse of :func:`patchify`: (B, N, p*p*C) -> (B, C, H, W)."""
    batch, _, size = patches.shape
    rows, columns = grid
    channels = size // (patch * patch)
    image = patches.reshape(batch, rows, columns, patch, patch, channels)
    image = image.permute(0, 5, 1, 3, 2, 4)  # (B, C, H/p, p, W/p, p)
    return image.reshape(batch, channels, rows * patch, columns * patch)


def unnormalized(images: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Normalised images (B, C, H, W) -> pixels, in [0, 1] where the images were; not clamped."""
    by_mean, by_std = (constant(v, images).view(1, -1, 1, 1) for v in (mean, std))
    return images * by_std + by_mean
