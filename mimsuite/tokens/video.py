"""Clips to tubelet tokens and back.

Letters: B batch, C channels, T x H x W frames and pixels, t frames of a tubelet, p patch size,
N = (T/t) * (H/p) * (W/p). A tubelet vector is (frame, row, column, channel), channel fastest;
tokens are in raster order of (T/t, H/p, W/p).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def tubelets(clips: Tensor, tubelet: int, patch: int, ids: Tensor | None = None) -> Tensor:
    """Tubelet vectors of (B, C, T, H, W) clips: (B, N, t*p*p*C), or only the rows ``ids`` (B, K).

    The full grid is only a view; just the tubelets asked for are copied.

    Raises:
        ValueError: a length or side that tubelet or patch size do not divide.
    """
    batch, channels, length, height, width = clips.shape
    if length % tubelet or height % patch or width % patch:
        raise ValueError(
            f"tubelets of {tubelet} frames and {patch} pixels do not divide a clip of {length} "
            f"frames of {height} x {width}"
        )
    frames, rows, columns = length // tubelet, height // patch, width // patch
    grid = clips.reshape(batch, channels, frames, tubelet, rows, patch, columns, patch)
    grid = grid.permute(0, 2, 4, 6, 3, 5, 7, 1)  # (B, T/t, H/p, W/p, t, p, p, C)
    if ids is not None:
        sample = torch.arange(batch, device=clips.device).unsqueeze(1)
        place = ids % (rows * columns)
        grid = grid[sample, ids // (rows * columns), place // columns, place % columns]
    return grid.reshape(batch, -1, tubelet * patch * patch * channels)


def from_tubelets(tokens: Tensor, tubelet: int, patch: int, grid: tuple[int, int, int]) -> Tensor:
    """Inverse of :func:`tubelets`: (B, N, t*p*p*C) -> (B, C, T, H, W)."""
    batch, _, size = tokens.shape
    frames, rows, columns = grid
    channels = size // (tubelet * patch * patch)
    clip = tokens.reshape(batch, frames, rows, columns, tubelet, patch, patch, channels)
    clip = clip.permute(0, 7, 1, 4, 2, 5, 3, 6)  # (B, C, T/t, t, H/p, p, W/p, p)
    return clip.reshape(batch, channels, frames * tubelet, rows * patch, columns * patch)


def sinusoid_1d(tokens: int, width: int) -> Tensor:
    """Sinusoid table (tokens, width) float32 over the flattened token index, in float64.

    ``angle = index / 10000 ** (2 * floor(j / 2) / width)``; sine in even columns j, cosine in odd
    ones (Vaswani et al., arXiv:1706.03762, as in VideoMAE's code).
    """
    column = torch.arange(width)
    power = 2 * column.div(2, rounding_mode="floor").double() / width
    angle = torch.arange(tokens, dtype=torch.float64)[:, None] / 10000.0**power
    return torch.where(column % 2 == 0, angle.sin(), angle.cos()).float()


def resize_clip_positions(
    table: Tensor, old: tuple[int, int, int], new: tuple[int, int, int]
) -> Tensor:
    """A (1, T*H*W, D) table on another grid: bicubic in each frame, then linear over time."""
    if old == new:
        return table
    width = table.shape[2]
    frames = table.reshape(*old, width).permute(0, 3, 1, 2)  # (T, D, H, W)
    if old[1:] != new[1:]:
        frames = F.interpolate(frames, size=new[1:], mode="bicubic", align_corners=False)
    if old[0] != new[0]:
        series = frames.permute(2, 3, 1, 0).flatten(0, 1)  # (H*W, D, T)
        series = F.interpolate(series, size=new[0], mode="linear", align_corners=False)
        frames = series.unflatten(0, new[1:]).permute(3, 2, 0, 1)
    return frames.permute(0, 2, 3, 1).reshape(1, -1, width)


def fit_clip_positions(
    table: Tensor, old: tuple[int, int, int], new: tuple[int, int, int]
) -> Tensor:
    """A (1, T*H*W, D) table on another grid as V-JEPA does it: of fewer frames the first ones,
    else trilinear; of images bicubic."""
    if old == new:
        return table
    if old[1:] == new[1:] and new[0] < old[0]:
        return table[:, : new[0] * new[1] * new[2]]
    grid = table.reshape(1, *old, -1).permute(0, 4, 1, 2, 3)
    if old[0] == new[0] == 1:
        grid = F.interpolate(grid[:, :, 0], size=new[1:], mode="bicubic", align_corners=False)
    else:
        grid = F.interpolate(grid, size=new, mode="trilinear", align_corners=False)
    return grid.flatten(2).transpose(1, 2)
