"""Point clouds to groups: farthest centres and their nearest neighbours.

Letters: B clouds, N points, G groups, K points of a group, Q queries.

Everything is exact float32 arithmetic on whole batches, on any device. Sampling costs N * G
operations per cloud; coordinates are kept as three planes, which is several times faster than rows
of three. Neighbours come from a table of G * N distances, computed in parts if it is large.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

FarthestRule = Literal["pointnet2", "plain"]

_ORIGIN = 1e-3  # squared radius within which pointnet2_ops never picks a centre
_MOST_THREADS = 512  # threads of its kernel; they decide ties between equal distances
_LARGEST_TABLE = 1 << 26  # distances held at once


@dataclass(frozen=True)
class Groups:
    """Clouds cut into overlapping groups.

    Attributes:
        center: (B, G, 3) coordinates of the group centres, in the order they were picked.
        points: (B, G, K, 3) points of each group, relative to its centre, nearest first.
        center_ids: (B, G) int64 ids of the centres among the cloud's points.
        ids: (B, G, K) int64 ids of the points of each group; the centre is one of them.
    """

    center: Tensor
    points: Tensor
    center_ids: Tensor
    ids: Tensor


@torch.no_grad()
def group(points: Tensor, groups: int, size: int, rule: FarthestRule = "pointnet2") -> Groups:
    """Cut (B, N, 3) clouds into ``groups`` groups of ``size`` points each.

    Raises:
        ValueError: fewer points than ``groups`` or than ``size``.
    """
    if points.shape[1] < max(groups, size):
        raise ValueError(
            f"{points.shape[1]} points cannot make {groups} groups of {size} points each"
        )
    points = points.float()
    center_ids = farthest_points(points, groups, rule)
    center = gather(points, center_ids)
    ids = nearest(points, center, size)  # (B, G, K)
    members = gather(points, ids.flatten(1)).unflatten(1, (groups, size))  # (B, G, K, 3)
    return Groups(center, members - center.unsqueeze(2), center_ids, ids)


@torch.no_grad()
def farthest_points(points: Tensor, count: int, rule: FarthestRule = "pointnet2") -> Tensor:
    """Farthest-point sampling: (B, count) int64 ids, the first is point 0.

    Each next point is the one farthest from all points picked before.

    Args:
        points: (B, N, 3) float32.
        count: points to pick, at most N.
        rule: ``pointnet2``: like the CUDA kernel of pointnet2_ops, with which published point
            models were trained. Points with ``|p|**2 <= 1e-3`` are never picked (except point 0);
            among equal distances the lowest ``id % T`` wins, then the lowest id, where T is the
            largest power of two up to N and 512. ``plain``: every point may be picked; among equal
            distances the lowest id wins.
    """
    batch, total, _ = points.shape
    order = _pick_order(total, rule, points.device)
    x, y, z = (points[..., axis][:, order].contiguous() for axis in range(3))  # (B, N) each
    nearest_picked = points.new_full((batch, total), 1e10)  # squared distance
    if rule == "pointnet2":
        nearest_picked.masked_fill_(x * x + y * y + z * z <= _ORIGIN, -1.0)
    picked = [points.new_zeros((batch, 1), dtype=torch.int64)]
    # No buffers while exporting: they would fix the graph's number of clouds.
    exporting = torch.compiler.is_exporting()
    first, second = (None, None) if exporting else (torch.empty_like(x), torch.empty_like(x))
    for _ in range(1, count):
        last = picked[-1]
        distance = torch.sub(x, x.gather(1, last), out=first).square_()
        distance.add_(torch.sub(y, y.gather(1, last), out=second).square_())
        distance.add_(torch.sub(z, z.gather(1, last), out=second).square_())
        # Excluded points stay at -1. Among equal values argmax takes the first.
        nearest_picked = torch.minimum(nearest_picked, distance)
        picked.append(torch.argmax(nearest_picked, dim=1, keepdim=True))
    return order[torch.cat(picked, dim=1)]  # (B, count)


def _pick_order(total: int, rule: FarthestRule, device: torch.device) -> Tensor:
    """(N,) ids in order of preference among equal distances; id 0 comes first."""
    ids = torch.arange(total, device=device)
    if rule == "plain":
        return ids
    threads = min(_MOST_THREADS, 1 << (total.bit_length() - 1))
    return (ids % threads * total + ids).argsort()


@torch.no_grad()
def nearest(points: Tensor, queries: Tensor, count: int) -> Tensor:
    """(B, Q, count) int64 ids of the nearest of (B, N, 3) ``points``, nearest first.

    Distances are exact: the matrix-product form, which cancels near zero, is not used.
    """
    if torch.compiler.is_exporting():  # the graph must not depend on the number of clouds
        rows = queries.shape[1]
    else:
        rows = max(1, _LARGEST_TABLE // (points.shape[0] * points.shape[1]))
    parts = [
        distances(part, points).topk(count, dim=2, largest=False, sorted=True).indices
        for part in queries.split(rows, dim=1)
    ]
    return torch.cat(parts, dim=1)


def distances(queries: Tensor, points: Tensor) -> Tensor:
    """(B, Q, N) exact Euclidean distances."""
    if torch.compiler.is_exporting():  # no graph format has cdist
        return (queries.unsqueeze(2) - points.unsqueeze(1)).square().sum(dim=3).sqrt()
    if queries.is_cpu:
        return torch.cdist(queries, points, compute_mode="donot_use_mm_for_euclid_dist")
    return distances_by_planes(queries, points)


def distances_by_planes(queries: Tensor, points: Tensor) -> Tensor:
    """:func:`distances` axis by axis. CUDA's exact ``cdist`` starts a block of threads for each
    distance, and is many times slower."""
    (x, *others) = (
        (queries[..., axis].unsqueeze(2), points[..., axis].unsqueeze(1))
        for axis in range(points.shape[-1])
    )
    total = torch.sub(*x).square_()
    apart = torch.empty_like(total)
    for a, b in others:
        total.add_(torch.sub(a, b, out=apart).square_())
    return total.sqrt_()


def gather(points: Tensor, ids: Tensor) -> Tensor:
    """Rows ``ids`` (B, n) of (B, N, D) -> (B, n, D)."""
    return points.gather(1, ids.unsqueeze(-1).expand(-1, -1, points.shape[-1]))
