"""Positions of volume tokens."""

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
    third = width // 3
    omega = 10000.0 ** (-2 * torch.arange(third // 2, dtype=torch.float64) / third)

    def axis(number: int) -> Tensor:  # (A, B, C, width / 3)
        angle = torch.arange(grid[number], dtype=torch.float64)[:, None] * omega
        entry = torch.cat([angle.sin(), angle.cos()], dim=1)
        shape = [1, 1, 1, third]
        shape[number] = grid[number]
        return entry.view(shape).expand(*grid, -1)

    return torch.cat([axis(1), axis(0), axis(2)], dim=-1).float()
