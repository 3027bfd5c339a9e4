"""Encoding of upright rotated boxes relative to a point (NeRF-RPN, Hu et al., arXiv:2211.11646).

The code is six distances from the point to the faces of the axis-aligned outer box, and two offsets
of the corners that touch the outer box ("midpoint offsets", Xie et al., arXiv:2108.05699).

Letters: N boxes.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mimsuite.targets.boxes import corners

_TOUCHES = 0.1  # voxels: corners this close to a face of the outer box count as touching it


def encode_boxes(points: Tensor, boxes: Tensor) -> Tensor:
    """(N, 8): distances to the lower and the upper faces along x, y, z, then alpha and beta.

    alpha is the x of the corner that touches the upper y face, beta the y of the corner that
    touches the upper x face. Both are relative to the centre, as a fraction of the outer box's
    side.

    Args:
        points: (N, 3).
        boxes: (N, 7).
    """
    footprint = corners(boxes)  # (N, 4, 2)
    half = boxes[:, 5:6] / 2
    low = torch.cat([footprint.amin(1), boxes[:, 2:3] - half], dim=1)  # (N, 3)
    high = torch.cat([footprint.amax(1), boxes[:, 2:3] + half], dim=1)
    x, y = footprint.unbind(-1)  # (N, 4)
    at_top = x.masked_fill(high[:, 1:2] - y >= _TOUCHES, -torch.inf).amax(1)
    at_right = y.masked_fill(high[:, 0:1] - x >= _TOUCHES, torch.inf).amin(1)
    touching = torch.stack([at_top, at_right], dim=1)
    offsets = (touching - boxes[:, :2]) / (high - low)[:, :2]
    return torch.cat([points - low, high - points, offsets], dim=1)


def decode_boxes(points: Tensor, code: Tensor) -> Tensor:
    """Boxes (N, 7) from points (N, 3) and codes (N, 8); yaw in [0, pi / 2).

    The four touching points form a parallelogram. Stretching the shorter half-diagonal to the
    length of the longer one makes it a rectangle.
    """
    low, high = points - code[:, :3], points + code[:, 3:6]
    centre, size = (low + high) / 2, high - low
    alpha, beta = code[:, 6], code[:, 7]
    up = torch.stack([alpha * size[:, 0], size[:, 1] / 2], dim=1)  # from the centre
    right = torch.stack([size[:, 0] / 2, beta * size[:, 1]], dim=1)
    lengths = torch.stack([up.norm(dim=1), right.norm(dim=1)])
    longer = lengths.amax(0)
    up = up * (longer / lengths[0].clamp_min(1e-12))[:, None]
    right = right * (longer / lengths[1].clamp_min(1e-12))[:, None]
    width, length = right + up, up - right  # lowest corner to right corner, right to top
    yaw = torch.atan2(width[:, 1], width[:, 0])
    sides = torch.stack([width.norm(dim=1), length.norm(dim=1), size[:, 2]], dim=1)
    return torch.cat([centre, sides, yaw[:, None]], dim=1)
