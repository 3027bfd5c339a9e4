"""Geometry of boxes rotated about the vertical axis, in plain torch.

A box is (x, y, z, w, l, h, theta): centre, sides along x, y and z before rotation, and yaw in
radians. Areas are computed in float64, because thin overlaps lose precision in float32.

Letters: N, M boxes, C points.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mimsuite.tokens.constants import constant

_INSIDE = 1e-9  # tolerance: corners this far outside an edge count as on it
_UNIT = (0.5, 0.5, -0.5, 0.5, -0.5, -0.5, 0.5, -0.5)  # x, y of corners, counter-clockwise


def corners(boxes: Tensor) -> Tensor:
    """(..., 4, 2) corners of the footprints of (..., 7) boxes, counter-clockwise."""
    unit = constant(_UNIT, boxes).view(4, 2)
    x, y = (unit * boxes[..., None, 3:5]).unbind(-1)  # (..., 4)
    cos, sin = boxes[..., None, 6].cos(), boxes[..., None, 6].sin()
    turned = torch.stack([x * cos - y * sin, x * sin + y * cos], dim=-1)
    return turned + boxes[..., None, :2]


def outer_boxes(boxes: Tensor) -> Tensor:
    """Smallest axis-aligned boxes (..., 7) around (..., 7) boxes."""
    footprint = corners(boxes)
    low, high = footprint.amin(-2), footprint.amax(-2)  # (..., 2)
    flat = [(low + high) / 2, boxes[..., 2:3], high - low, boxes[..., 5:6]]
    return torch.cat([*flat, torch.zeros_like(boxes[..., :1])], dim=-1)


def intersection_area(a: Tensor, b: Tensor) -> Tensor:
    """(...) float64 intersection area of convex quadrilaterals (..., 4, 2), counter-clockwise.

    The corners of the intersection are the corners of each that lie inside the other, and the
    crossings of their edges, sorted by angle around their mean.
    """
    a, b = a.double(), b.double()
    edge_points, crossing = _crossings(a, b)
    points = torch.cat([a, b, edge_points], dim=-2)  # (..., 24, 2)
    valid = torch.cat([_inside(a, b), _inside(b, a), crossing], dim=-1)  # (..., 24)
    count = valid.sum(-1, keepdim=True).clamp_min(1)
    centre = (points * valid[..., None]).sum(-2) / count  # (..., 2)
    offset = points - centre[..., None, :]
    angle = torch.atan2(offset[..., 1], offset[..., 0]).masked_fill(~valid, torch.inf)
    order = angle.argsort(dim=-1)
    offset = offset.gather(-2, order[..., None].expand_as(offset))
    valid = valid.gather(-1, order)
    # Invalid points are moved onto the first corner, where they add no area.
    offset = torch.where(valid[..., None], offset, offset[..., :1, :])
    after = offset.roll(-1, dims=-2)
    doubled = (offset[..., 0] * after[..., 1] - offset[..., 1] * after[..., 0]).sum(-1)
    return torch.where(valid.sum(-1) >= 3, doubled.abs() / 2, 0.0)


def iou(a: Tensor, b: Tensor) -> Tensor:
    """(...) float64 intersection over union of volumes, for pairs of (..., 7) boxes."""
    shared, union = volumes(a, b)
    return shared / union


def iou_matrix(a: Tensor, b: Tensor) -> Tensor:
    """(N, M) float64 intersection over union of all pairs of (N, 7) and (M, 7) boxes."""
    n, m = len(a), len(b)
    pairs = a[:, None].expand(n, m, 7), b[None].expand(n, m, 7)
    return iou(*pairs)


def giou_loss(a: Tensor, b: Tensor) -> Tensor:
    """(N,) ``1 - IoU + (hull - union) / hull`` of (N, 7) pairs (Rezatofighi et al.,
    arXiv:1902.09630). The hull is the smallest box of any yaw around both boxes."""
    shared, union = volumes(a, b)
    hull = _hull_sides(a, b).prod(-1)
    return 1 - shared / union + (hull - union) / hull


def diou_loss(a: Tensor, b: Tensor) -> Tensor:
    """(N,) ``1 - IoU + distance of centres^2 / diagonal of the hull^2`` (arXiv:1911.08287)."""
    apart = (a[..., :3] - b[..., :3]).double().square().sum(-1)
    return 1 - iou(a, b) + apart / _hull_sides(a, b).square().sum(-1)


def _hull_sides(a: Tensor, b: Tensor) -> Tensor:
    """(N, 3) float64 sides of the box with the smallest footprint around each pair.

    One side of that footprint lies along an edge of the convex hull, and thus on a line through two
    of the eight corners.
    """
    points = torch.cat([corners(a), corners(b)], dim=-2).double()  # (N, 8, 2)
    first, second = torch.triu_indices(8, 8, offset=1, device=points.device)
    along = points[:, second] - points[:, first]  # (N, 28, 2)
    along = along / along.norm(dim=-1, keepdim=True).clamp_min(1e-12)
    across = torch.stack([-along[..., 1], along[..., 0]], dim=-1)
    x, y = (points @ axis.transpose(1, 2) for axis in (along, across))  # (N, 8, 28)
    sides = torch.stack([x.amax(1) - x.amin(1), y.amax(1) - y.amin(1)], dim=-1)  # (N, 28, 2)
    smallest = sides.prod(-1).argmin(-1)
    footprint = sides[torch.arange(len(sides), device=sides.device), smallest]
    tops, bottoms = (
        torch.stack([box[:, 2] + sign * box[:, 5] / 2 for box in (a, b)]).double()
        for sign in (1, -1)
    )
    height = tops.amax(0) - bottoms.amin(0)
    return torch.cat([footprint, height[:, None]], dim=-1)


def volumes(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """(...) float64 volumes of the intersection and of the union of (..., 7) pairs."""
    a, b = a.double(), b.double()
    area = intersection_area(corners(a), corners(b))
    top = torch.minimum(a[..., 2] + a[..., 5] / 2, b[..., 2] + b[..., 5] / 2)
    bottom = torch.maximum(a[..., 2] - a[..., 5] / 2, b[..., 2] - b[..., 5] / 2)
    shared = area * (top - bottom).clamp_min(0)
    return shared, a[..., 3:6].prod(-1) + b[..., 3:6].prod(-1) - shared


def _inside(points: Tensor, polygon: Tensor) -> Tensor:
    """(..., C) bool: which of (..., C, 2) points lie in the (..., 4, 2) polygon."""
    start, end = polygon, polygon.roll(-1, dims=-2)
    edge = (end - start)[..., None, :, :]  # (..., 1, 4, 2)
    to = points[..., :, None, :] - start[..., None, :, :]  # (..., C, 4, 2)
    side = edge[..., 0] * to[..., 1] - edge[..., 1] * to[..., 0]
    return (side >= -_INSIDE).all(-1)


def _crossings(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """(..., 16, 2) crossings of all pairs of edges, and (..., 16) bool: which crossings exist."""
    p, q = a[..., :, None, :], b[..., None, :, :]  # (..., 4, 1, 2), (..., 1, 4, 2)
    r = (a.roll(-1, dims=-2) - a)[..., :, None, :]
    s = (b.roll(-1, dims=-2) - b)[..., None, :, :]
    cross = r[..., 0] * s[..., 1] - r[..., 1] * s[..., 0]  # (..., 4, 4)
    parallel = cross.abs() < 1e-14
    safe = torch.where(parallel, 1.0, cross)
    to = q - p
    t = (to[..., 0] * s[..., 1] - to[..., 1] * s[..., 0]) / safe
    u = (to[..., 0] * r[..., 1] - to[..., 1] * r[..., 0]) / safe
    exists = ~parallel & (t >= 0) & (t <= 1) & (u >= 0) & (u <= 1)
    points = p + t[..., None] * r
    return points.flatten(-3, -2), exists.flatten(-2, -1)
