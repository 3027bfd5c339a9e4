"""Chamfer distance between point sets, as in Point-MAE (arXiv:2203.06604, section 3.3).

Letters: P pairs of sets, n and m points of the two sets.

The nearest points are searched without gradient; only the n + m nearest pairs are then subtracted
with gradient. So nothing of size n * m is kept for the backward pass, and the gradient equals that
of the published CUDA extension, ``2 (a - nearest b)`` for squared distances.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from mimsuite.tokens.points import distances, gather

ChamferKind = Literal["l1", "l2"]

_LARGEST_TABLE = 1 << 26  # distances held at once
_SMALLEST_SQUARE = 1e-12  # smaller squares get no gradient: the root's gradient is infinite at 0


def chamfer(a: Tensor, b: Tensor, kind: ChamferKind = "l2") -> Tensor:
    """Chamfer distance of (P, n, 3) and (P, m, 3) points, mean over all pairs; 0-d float32.

    ``l2``: mean squared distance to the nearest point, from a to b plus from b to a.
    ``l1``: mean distance to the nearest point, averaged over both directions.

    Computed in float32 or wider, also under autocast.
    """
    a, b = (x.to(torch.promote_types(x.dtype, torch.float32)) for x in (a, b))
    to_b, to_a = nearest_ids(a, b)
    squares = [(a - gather(b, to_b)).square().sum(-1), (b - gather(a, to_a)).square().sum(-1)]
    if kind == "l2":
        return squares[0].mean() + squares[1].mean()
    roots = [square.clamp_min(_SMALLEST_SQUARE).sqrt().mean() for square in squares]
    return (roots[0] + roots[1]) / 2


@torch.no_grad()
def nearest_ids(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """(P, n) ids of the nearest b for each a, and (P, m) ids of the nearest a for each b."""
    size = a.shape[1] * b.shape[1]
    if size > _LARGEST_TABLE:
        return _one_way(a, b), _one_way(b, a)
    pairs = max(1, _LARGEST_TABLE // size)
    tables = [distances(*both) for both in zip(a.split(pairs), b.split(pairs), strict=True)]
    return (
        torch.cat([table.argmin(dim=2) for table in tables]),
        torch.cat([table.argmin(dim=1) for table in tables]),
    )


def _one_way(a: Tensor, b: Tensor) -> Tensor:
    """Nearest b for each a, some rows of one pair at a time: the whole table would be too large."""
    rows = max(1, _LARGEST_TABLE // b.shape[1])
    return torch.stack(
        [
            torch.cat(
                [distances(part[None], others[None])[0].argmin(1) for part in points.split(rows)]
            )
            for points, others in zip(a, b, strict=True)
        ]
    )
