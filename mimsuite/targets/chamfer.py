"""The Chamfer distance between sets of points, as Point-MAE (arXiv:2203.06604, section 3.3) has it.

Letters: P pairs of sets, n and m points of the two sides.

Which point is nearest is found without gradient; then only the n + m pairs that count are taken
apart. So nothing of size n * m is kept for the backward pass, and the gradient is that of the
published CUDA extension, ``2 (a - nearest b)`` for squared distances.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from mimsuite.tokens.points import distances, gather

ChamferKind = Literal["l1", "l2"]

_LARGEST_TABLE = 1 << 26  # distances held at once
_SMALLEST_SQUARE = 1e-12  # below it a distance has no gradient: that of the root is infinite at 0


def chamfer(a: Tensor, b: Tensor, kind: ChamferKind = "l2") -> Tensor:
    """Chamfer distance of (P, n, 3) and (P, m, 3) points, mean over all pairs; 0-d float32.

    ``l2``: mean squared distance to the nearest point, from a to b plus from b to a.
    ``l1``: the mean distances, half of their sum.

    Computed in float32 or wider, under autocast too.
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
    """(P, n) ids of the nearest b of each a, and (P, m) of the nearest a of each b."""
    table = a.shape[1] * b.shape[1]
    if table > _LARGEST_TABLE:
        return _one_way(a, b), _one_way(b, a)
    pairs = max(1, _LARGEST_TABLE // table)
    found = [distances(*both) for both in zip(a.split(pairs), b.split(pairs), strict=True)]
    return (
        torch.cat([part.argmin(dim=2) for part in found]),
        torch.cat([part.argmin(dim=1) for part in found]),
    )


def _one_way(a: Tensor, b: Tensor) -> Tensor:
    """Of sets too large for a whole table, one pair and some rows at a time."""
    rows = max(1, _LARGEST_TABLE // b.shape[1])
    return torch.stack(
        [
            torch.cat(
                [distances(part[None], theirs[None])[0].argmin(1) for part in ours.split(rows)]
            )
            for ours, theirs in zip(a, b, strict=True)
        ]
    )
