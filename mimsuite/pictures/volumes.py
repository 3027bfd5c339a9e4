"""Pictures of radiance grids from the side and from above, with the nearest part cut away.

The cut removes the walls and ceilings of rooms, which would hide everything else.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

_CUT = 0.2  # fraction of the depth that is cut away
_COLOURS = 12
_TURN = 0.618  # turn of the colour circle between two classes: neighbours differ most
_COVER = 0.5  # share of a class's colour in the picture


def march(grids: Tensor) -> Tensor:
    """(B, 4, R, R, R) colour and opacity -> (B, 3, R, 2 R) views in [0, 1], along y and from above.

    Composited front to back on white; z is up.
    """
    return torch.cat([_along(grids, axis) for axis in (3, 4)], dim=-1)


def slices(scans: Tensor) -> Tensor:
    """(B, C, X, Y, Z) -> (B, C, H, W): the middle slices from above, from the front and from the
    side, beside each other; the patient's right is on the right, the front or the head above."""
    x, y, z = (side // 2 for side in scans.shape[2:])
    planes = [scans[..., z], scans[:, :, :, y], scans[:, :, x]]
    height = max(plane.shape[3] for plane in planes)
    shown = [plane.transpose(2, 3).flip(2) for plane in planes]  # (B, C, rows, columns)
    padded = [F.pad(plane, (0, 0, 0, height - plane.shape[2])) for plane in shown]
    return torch.cat(padded, dim=3)


def coloured(grey: Tensor, labels: Tensor) -> Tensor:
    """(B, 1, H, W) pictures in [0, 1] with a colour over each class but 0 -> (B, 3, H, W).

    Args:
        labels: (B, H, W) int64; a class from 1 on has one of twelve colours, 255 is unknown and
            shown as white.
    """
    number = torch.arange(_COLOURS)
    turns = (number * _TURN % 1.0)[:, None] + torch.tensor([0.0, 1 / 3, 2 / 3])
    palette = (0.5 + 0.5 * (2 * torch.pi * turns).cos()).to(grey)  # (colours, 3)
    colours = palette[(labels - 1) % _COLOURS]
    colours = torch.where((labels == 255)[..., None], 1.0, colours).movedim(-1, 1)
    over = (labels > 0)[:, None].to(grey) * _COVER
    return grey * (1 - over) + colours * over


def _along(grids: Tensor, axis: int) -> Tensor:
    """The view against an axis of the tensor: 3 is y, 4 is z."""
    kept = grids.narrow(axis, 0, max(1, int(grids.shape[axis] * (1 - _CUT)))).flip(axis)
    colour, alpha = kept[:, :3].clamp(0, 1), kept[:, 3:].clamp(0, 1)
    light = (1 - alpha).cumprod(axis)
    before = torch.cat([torch.ones_like(light.narrow(axis, 0, 1)), light], dim=axis)
    before = before.narrow(axis, 0, alpha.shape[axis])  # light that reaches a voxel
    last = light.select(axis, light.shape[axis] - 1)
    seen = (before * alpha * colour).sum(axis) + last  # (B, 3, x, z or y)
    return seen.transpose(2, 3).flip(2)  # rows go down, from the highest z or y
