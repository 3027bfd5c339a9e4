"""Geometric transforms of radiance grids together with their boxes.

A grid is (C, X, Y, Z), z up. Boxes are (N, 7): x, y, z, w, l, h, theta, or (N, 6): lower and upper
corners, in voxels from the grid's lower end.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

Moved = tuple[Tensor, Tensor | None]


def quarter_turn(grid: Tensor, boxes: Tensor | None = None) -> Moved:
    """Rotate by 90 degrees about z: (x, y) -> (Y - y, x).

    Rotated boxes keep their angle and swap width and length, which describes the same box.
    """
    side = grid.shape[2]
    turned = grid.transpose(1, 2).flip(1)
    if boxes is None:
        return turned, None
    if boxes.shape[1] == 6:
        low, high = boxes[:, :3], boxes[:, 3:]
        moved = [side - high[:, 1], low[:, 0], low[:, 2], side - low[:, 1], high[:, 0], high[:, 2]]
    else:
        x, y, z, w, length, h, theta = boxes.unbind(1)
        moved = [side - y, x, z, length, w, h, theta]
    return turned, torch.stack(moved, dim=1)


def mirror(grid: Tensor, axis: int, boxes: Tensor | None = None) -> Moved:
    """Mirror along x (``axis`` 0) or y (1)."""
    side = grid.shape[axis + 1]
    if boxes is not None:
        boxes = boxes.clone()
        if boxes.shape[1] == 6:
            low, high = boxes[:, axis].clone(), boxes[:, axis + 3].clone()
            boxes[:, axis], boxes[:, axis + 3] = side - high, side - low
        else:
            boxes[:, axis] = side - boxes[:, axis]
            boxes[:, 6] = -boxes[:, 6]
    return grid.flip(axis + 1), boxes


def turn_and_scale(
    grid: Tensor,
    angle: float,
    scale: float,
    boxes: Tensor | None = None,
    *,
    mode: str = "bilinear",
) -> Moved:
    """Resample the grid within its rotated and scaled outline, at the same resolution; ``mode`` is
    bilinear (trilinear here) or nearest.

    Objects rotate by ``-angle`` radians about z and shrink by ``scale``; outside is empty.
    """
    sides = torch.tensor(grid.shape[1:], dtype=grid.dtype)
    cos, sin = math.cos(angle), math.sin(angle)
    turn = grid.new_tensor([[cos, -sin, 0.0], [sin, cos, 0.0], [0.0, 0.0, 1.0]])
    # Samples include both ends: the first voxel is at 0, the last at the full side.
    axes = [torch.linspace(-1, 1, side, dtype=grid.dtype) for side in grid.shape[1:]]
    at = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1) * sides  # (X, Y, Z, 3)
    source = scale * at @ turn.T / sides  # corners at -1 and 1
    moved = F.grid_sample(grid[None], source.flip(-1)[None], mode=mode, align_corners=True)[0]
    if boxes is None:
        return moved, None
    centre = (boxes[:, :3] - sides / 2) @ turn / scale + sides / 2
    return moved, torch.cat([centre, boxes[:, 3:6] / scale, boxes[:, 6:] - angle], dim=1)
