"""Fixed sin-cos positions, and resizing of position tables."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def sincos_2d(width: int, grid: tuple[int, int], row_first: bool = False) -> Tensor:
    """2-D sin-cos table (H*W, width) float32, computed in float64.

    Per axis, ``omega_k = 10000 ** (-k / (width/4))`` and the entry is [sin(pos w), cos(pos w)].
    MAE encodes the COLUMN in the first half of the width and the row in the second;
    ``row_first`` (CAE) swaps the halves.
    """
    if width % 4:
        raise ValueError(f"sin-cos positions need a width that 4 divides, not {width}")
    quarter = width // 4
    omega = 10000.0 ** (-torch.arange(quarter, dtype=torch.float64) / quarter)

    def axis(length: int) -> Tensor:  # (length, width/2)
        angle = torch.arange(length, dtype=torch.float64)[:, None] * omega
        return torch.cat([angle.sin(), angle.cos()], dim=1)

    rows, columns = grid
    row = axis(rows)[:, None].expand(rows, columns, -1)
    column = axis(columns)[None].expand(rows, columns, -1)
    halves = [row, column] if row_first else [column, row]
    return torch.cat(halves, dim=-1).reshape(rows * columns, width).float()


def resize_positions(table: Tensor, old: tuple[int, int], new: tuple[int, int]) -> Tensor:
    """Bicubic resize of a (1, P + H*W, D) table to another grid; P leading rows are kept.

    As published for MAE: no antialiasing, corners not aligned.
    """
    if old == new:
        return table
    prefix = table.shape[1] - old[0] * old[1]
    grid = table[:, prefix:].reshape(1, *old, -1).permute(0, 3, 1, 2)
    grid = F.interpolate(grid, size=new, mode="bicubic", align_corners=False)
    return torch.cat([table[:, :prefix], grid.permute(0, 2, 3, 1).flatten(1, 2)], dim=1)
