"""Fixed sin-cos positions of grids and of points, and resizing of position tables."""

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


def sincos_clip(width: int, grid: tuple[int, int, int], even: bool = True) -> Tensor:
    """3-D sin-cos table (T*H*W, width) float32 of time, row and column, computed in float64.

    Per axis of d numbers, ``omega_k = 10000 ** (-k / (d/2))`` and the entry is [sin(pos w),
    cos(pos w)]. Of a single frame it is [row, column], half of the width each.

    Args:
        even: each axis has ``2 ceil(width / 6)`` numbers, and what exceeds the width is cut off
            the columns; else time has half of the width, rows and columns a quarter each.
    """

    def axis(length: int, numbers: int) -> Tensor:  # (length, numbers)
        half = numbers // 2
        omega = 10000.0 ** (-torch.arange(half, dtype=torch.float64) / half)
        angle = torch.arange(length, dtype=torch.float64)[:, None] * omega
        return torch.cat([angle.sin(), angle.cos()], dim=1)

    frames, rows, columns = grid
    third = 2 * -(-width // 6)
    sizes = (third, third, third) if even else (width // 2, width // 4, width // 4)
    time = axis(frames, sizes[0])[:, None, None].expand(frames, rows, columns, -1)
    if frames == 1:
        time, sizes = time[..., :0], (0, width // 2, width // 2)
    row = axis(rows, sizes[1])[None, :, None].expand(frames, rows, columns, -1)
    column = axis(columns, sizes[2])[None, None].expand(frames, rows, columns, -1)
    return torch.cat([time, row, column], dim=-1)[..., :width].flatten(0, 2).float()


def sincos_points(points: Tensor, width: int) -> Tensor:
    """(..., 3) coordinates -> (..., width) float32 sin-cos codes (PCP-MAE, arXiv:2408.08753).

    Per axis x, y, z: ``omega_k = 10000 ** (-k / (width/6))`` and the entry is [sin(p w), cos(p w)].
    """
    if width % 6:
        raise ValueError(f"sin-cos codes of points need a width that 6 divides, not {width}")
    count = width // 6
    omega = 10000.0 ** (-torch.arange(count, dtype=torch.float32, device=points.device) / count)
    angle = points.float().unsqueeze(-1) * omega  # (..., 3, count)
    return torch.cat([angle.sin(), angle.cos()], dim=-1).flatten(-2)


def points_of_sincos(code: Tensor) -> Tensor:
    """(..., width) codes, exact or predicted -> (..., 3) coordinates within half a turn of 0.

    Reads the first frequency of each axis, which is 1.
    """
    axes = code.float().unflatten(-1, (3, 2, -1))[..., 0]  # (..., 3, [sin, cos])
    return torch.atan2(axes[..., 0], axes[..., 1])


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
