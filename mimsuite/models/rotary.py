"""Rotary positions of grids. Of neither kind do pairs of numbers turn by one angle: they are no
rotations, and released weights need them so.

:func:`turn`: of time, rows and columns, as in V-JEPA 2 (arXiv:2506.09985). A head has three bands
of equal width, one an axis, and what is left over does not turn. Of the k frequencies of a band the
list is laid out twice in a row, while partners are neighbours.

:func:`turn_halves`: of rows and columns in [0, 1], as in CAPI (arXiv:2502.08769). The partner of
each number in the first half of a head is that in the second; the first turns by the angle of the
row and the second by that of the column.

Letters: B batch, h heads, N tokens, d width of a head, w numbers that turn.
"""

from __future__ import annotations

import torch
from torch import Tensor

Turns = tuple[Tensor, Tensor]  # cosine and sine, each (B or 1, 1, N, w) float32


def turns_of(ids: Tensor, grid: tuple[int, int, int], head_width: int) -> Turns:
    """The turns of tokens.

    Args:
        ids: (B or 1, N) int64, in raster order of ``grid``.
        grid: tokens along time, per column and per row.
        head_width: d, 6 at least.
    """
    _, rows, columns = grid
    band = 2 * (head_width // 3 // 2)
    steps = torch.arange(band // 2, dtype=torch.float32, device=ids.device)
    frequencies = (1 / 10000 ** (steps / (band / 2))).repeat(2)  # (band,)
    places = (ids // (rows * columns), ids % (rows * columns) // columns, ids % columns)
    # In float32 under autocast too: half of the precision would move values by 5 %.
    angles = torch.cat([place.float().unsqueeze(-1) * frequencies for place in places], dim=-1)
    return angles.cos().unsqueeze(1), angles.sin().unsqueeze(1)


def of_samples(turns: Turns, rows: Tensor) -> Turns:
    """Those of the samples ``rows`` (K,); turns that all samples share stay as they are."""
    cosine, sine = (part if len(part) == 1 else part[rows] for part in turns)
    return cosine, sine


def turn(x: Tensor, turns: Turns, last: int | None = None) -> Tensor:
    """(B, h, N, d) queries or keys, rotated; ``last``: places of the last ``last`` tokens."""
    cosine, sine = turns if last is None else (part[:, :, -last:] for part in turns)
    width = cosine.shape[-1]
    moved = x[..., :width].float()
    even, odd = moved.unflatten(-1, (-1, 2)).unbind(-1)
    partner = torch.stack([-odd, even], dim=-1).flatten(-2)
    moved = moved * cosine + partner * sine
    return torch.cat([moved.to(x.dtype), x[..., width:]], dim=-1)


def frequencies_2d(head_width: int, fast: float, slow: float) -> Tensor:
    """(2, d) radians per image of each number of a head, along rows and along columns; d is a
    multiple of 4, and the list runs from ``fast`` to ``slow`` cycles."""
    count = head_width // 4
    steps = torch.arange(count, dtype=torch.float64) / max(count - 1, 1)
    one = 2 * torch.pi * fast * (slow / fast) ** steps
    zeros = torch.zeros(2 * count, dtype=torch.float64)
    return torch.stack([torch.cat([one, one, zeros]), torch.cat([zeros, one, one])]).float()


def places_2d(grid: tuple[int, int], device: torch.device | str = "cpu") -> Tensor:
    """(N, 2) row and column of each token of a grid, from 0 to 1, both ends included."""
    rows, columns = (torch.linspace(0, 1, side, device=device) for side in grid)
    return torch.stack(torch.meshgrid(rows, columns, indexing="ij"), dim=-1).flatten(0, 1)


def turn_halves(x: Tensor, places: Tensor, frequencies: Tensor) -> Tensor:
    """(B, h, N, d) queries or keys at (B or 1, N, 2) places, turned."""
    # Sums, no product of matrices: autocast would halve the precision of the angles.
    angles = places[..., :1] * frequencies[0] + places[..., 1:] * frequencies[1]
    cosine, sine = angles.cos().unsqueeze(1), angles.sin().unsqueeze(1)
    moved = x.float()
    first, second = moved.chunk(2, dim=-1)
    moved = moved * cosine + torch.cat([-second, first], dim=-1) * sine
    return moved.to(x.dtype)
