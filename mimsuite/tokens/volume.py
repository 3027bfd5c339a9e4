"""Positions of volume tokens, and of tokens of a time series of rasters."""

from __future__ import annotations

import torch
from torch import Tensor


def sincos_3d(width: int, grid: tuple[int, int, int]) -> Tensor:
    """3-D sin-cos table (A, B, C, width) float32, computed in float64.

    Per axis ``omega_k = 10000 ** (-2 k / (width / 3))`` and the entry is [sin(pos w), cos(pos w)].
    As published for NeRF-MAE, the first third encodes the SECOND axis, the second third the first.

    Raises:
        ValueError: 6 does not divide the width.
    """
    if width % 6:
        raise ValueError(f"3-D sin-cos positions need a width that 6 divides, not {width}")
    first, second, third = (_axis(width // 3, grid, number) for number in range(3))
    return torch.cat([second, first, third], dim=-1).float()


def sincos_series(width: int, grid: tuple[int, int, int]) -> Tensor:
    """3-D sin-cos table (T, H, W, width) float32: a quarter of the width encodes time, three
    eighths the row and three eighths the column; else as :func:`sincos_3d`.

    Raises:
        ValueError: 16 does not divide the width.
    """
    if width % 16:
        raise ValueError(f"positions of a series need a width that 16 divides, not {width}")
    widths = (width // 4, width // 8 * 3, width // 8 * 3)
    axes = [_axis(numbers, grid, number) for number, numbers in enumerate(widths)]
    return torch.cat(axes, dim=-1).float()


def sincos_of(values: Tensor, width: int) -> Tensor:
    """(...) float64 values -> (..., width) sin-cos codes, float64."""
    omega = 10000.0 ** (-2 * torch.arange(width // 2, device=values.device).double() / width)
    angle = values.double().unsqueeze(-1) * omega
    return torch.cat([angle.sin(), angle.cos()], dim=-1)


def _axis(width: int, grid: tuple[int, int, int], number: int) -> Tensor:
    """(A, B, C, width) codes of the position along an axis."""
    shape = [1, 1, 1, width]
    shape[number] = grid[number]
    return sincos_of(torch.arange(grid[number]), width).view(shape).expand(*grid, -1)
