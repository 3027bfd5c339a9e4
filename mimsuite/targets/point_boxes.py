"""FCOS-style assignment of boxes to the points of a feature pyramid, and its losses.

FCOS (Tian et al., arXiv:1904.01355) in three dimensions, as in NeRF-RPN (Hu et al.,
arXiv:2211.11646). Sizes are those of the axis-aligned outer box.

A positive point is one that is assigned a box, which it predicts.

Letters: B scenes, N points of all levels, n points of one level, M maximum number of boxes of a
scene, K points considered for the box losses.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from mimsuite.config.keys.volume_tasks import BoxTargetSection
from mimsuite.targets.box_code import decode_boxes
from mimsuite.targets.boxes import outer_boxes, volumes

_PER_BOX = 54  # most points of a box: 27 near its centre on each of the two levels it may fit
_LEAST = 1e-2  # voxels: smallest distance to a face; a box without extent has no gradient


def level_points(grid: Sequence[int], stride: int, device: torch.device | str = "cpu") -> Tensor:
    """(n, 3) float32 coordinates of a level's points in voxels, z fastest."""
    axes = [torch.arange(n, device=device) * stride + stride // 2 for n in grid]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).flatten(0, 2).float()


@dataclass(frozen=True)
class Assignment:
    """What each point of B scenes should predict.

    Attributes:
        box: (B, N) int64 row of the assigned box; 0 where the point is not positive.
        tells: (B, N) bool, the positive points.
        known: (B, N) bool, the points inside the scene and not in its padding.
        centre: (B, N) float32 centreness in [0, 1]; 0 where the point is not positive.
    """

    box: Tensor
    tells: Tensor
    known: Tensor
    centre: Tensor


def assign(
    levels: Sequence[Tensor],
    strides: Sequence[int],
    boxes: Tensor,
    sizes: Tensor,
    section: BoxTargetSection,
) -> Assignment:
    """Assign a box to each point near its centre on a level that fits the box's size.

    Where several boxes qualify, the smallest is assigned.

    Args:
        levels: (n, 3) coordinates of each level's points.
        boxes: (B, M, 7), padded with rows of zeros.
        sizes: (B, 3) sizes of the scenes in voxels.
    """
    bounds = [-1.0, *map(float, section.reach), torch.inf]
    rows = [
        [
            _of_level(points, bounds[i], bounds[i + 1], stride * section.radius, *scene)
            for i, (points, stride) in enumerate(zip(levels, strides, strict=True))
        ]
        for scene in zip(boxes, sizes, strict=True)
    ]
    columns = ([torch.cat(parts) for parts in zip(*row, strict=True)] for row in rows)
    box, positive, known, centre = (torch.stack(parts) for parts in zip(*columns, strict=True))
    return Assignment(box, positive, known, centre)


def _of_level(
    points: Tensor, low: float, high: float, radius: float, boxes: Tensor, size: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The four fields of an assignment for one level of one scene, (n,) each."""
    outer = outer_boxes(boxes)
    middle, half = outer[:, :3], outer[:, 3:6] / 2  # (M, 3)
    offset = points[:, None] - middle  # (n, M, 3)
    distances = torch.cat([half + offset, half - offset], dim=-1)  # (n, M, 6)
    farthest = distances.amax(-1)
    near = (offset.abs() < half.clamp_max(radius)).all(-1)
    known = (points < size).all(-1)  # (n,)
    fits = near & (farthest >= low) & (farthest <= high) & known[:, None]
    volume = outer[:, 3:6].prod(-1).expand_as(fits).masked_fill(~fits, torch.inf)
    smallest, box = volume.min(-1)  # (n,)
    positive = smallest.isfinite()
    assigned = distances.gather(1, box[:, None, None].expand(-1, 1, 6)).squeeze(1)  # (n, 6)
    pairs = assigned.clamp_min(0).unflatten(-1, (2, 3))  # distances to lower and upper faces
    ratios = pairs.amin(1) / pairs.amax(1).clamp_min(_LEAST)
    # The square root of the product of three ratios, as published; FCOS has two.
    centre = ratios.prod(-1).sqrt()
    return box * positive, positive, known, centre * positive


@dataclass(frozen=True)
class BoxLoss:
    """Loss terms per positive point; ``count`` is the number of positive points, at least 1."""

    score: Tensor
    box: Tensor
    centre: Tensor
    count: Tensor

    @property
    def total(self) -> Tensor:
        return self.score + self.box + self.centre


def box_loss(
    score: Tensor,
    centre: Tensor,
    code: Tensor,
    points: Tensor,
    boxes: Tensor,
    assigned: Assignment,
    section: BoxTargetSection,
) -> BoxLoss:
    """Focal loss over all points; overlap and centreness losses over positive points.

    Args:
        score, centre: (B, N) logits, float32.
        code: (B, N, 6 or 8).
        points: (N, 3).
        boxes: (B, M, 7).
    """
    positive = assigned.tells.float()
    count = positive.sum().clamp_min(1)
    focal = focal_loss(score, positive, section.focal_alpha, section.focal_gamma)
    # A fixed number of candidates, so that nothing waits for the device.
    most = min(_PER_BOX * boxes.shape[1], len(points))
    at = positive.topk(most, dim=1).indices  # (B, K)
    counted, near = positive.gather(1, at), assigned.centre.gather(1, at)
    which = assigned.box.gather(1, at)
    true = boxes.gather(1, which[..., None].expand(-1, -1, 7))  # (B, K, 7)
    predicted = code.gather(1, at[..., None].expand(-1, -1, code.shape[-1]))
    overlap = _overlap_loss(points[at].flatten(0, 1), predicted.flatten(0, 1), true.flatten(0, 1))
    weight = counted * near
    box = (overlap.view_as(weight) * weight).sum() / weight.sum().clamp_min(1e-6)
    middle = F.binary_cross_entropy_with_logits(centre.gather(1, at), near, reduction="none")
    return BoxLoss(
        (focal * assigned.known).sum() / count, box, (middle * counted).sum() / count, count
    )


def focal_loss(logits: Tensor, target: Tensor, alpha: float, gamma: float) -> Tensor:
    """Focal loss of each point (Lin et al., arXiv:1708.02002, eq. 5); ``target`` is 0 or 1."""
    entropy = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    wrong = torch.where(target > 0, 1 - logits.sigmoid(), logits.sigmoid())
    balance = torch.where(target > 0, alpha, 1 - alpha)
    return balance * wrong**gamma * entropy


def boxes_of(points: Tensor, code: Tensor) -> Tensor:
    """Boxes (N, 7) from points (N, 3) and codes (N, 6 or 8)."""
    if code.shape[1] == 8:
        return decode_boxes(points, code)
    low, high = points - code[:, :3], points + code[:, 3:]
    return torch.cat([(low + high) / 2, high - low, torch.zeros_like(low[:, :1])], dim=1)


def _overlap_loss(points: Tensor, code: Tensor, true: Tensor) -> Tensor:
    """(K,) ``-log((I + 1) / (U + 1))`` with volumes in voxels; finite without overlap."""
    code = torch.cat([code[:, :6].clamp_min(_LEAST), code[:, 6:]], dim=1)
    shared, union = volumes(boxes_of(points, code), true)
    return -((shared + 1) / (union + 1)).log().float()
