"""Rotary positions of a grid of time, rows and columns, as in V-JEPA 2 (arXiv:2506.09985).

A head has three bands of equal width, one an axis, and what is left over does not turn. Of the k
frequencies of a band the list is laid out twice in a row, while partners are neighbours. So the two
numbers of a pair turn by different angles: it is no rotation, and released weights need it so.

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


def turn(x: Tensor, turns: Turns, last: int | None = None) -> Tensor:
    """(B, h, N, d) queries or keys, turned; ``last``: they are of the last so many tokens only."""
    cosine, sine = turns if last is None else (part[:, :, -last:] for part in turns)
    width = cosine.shape[-1]
    moved = x[..., :width].float()
    even, odd = moved.unflatten(-1, (-1, 2)).unbind(-1)
    partner = torch.stack([-odd, even], dim=-1).flatten(-2)
    moved = moved * cosine + partner * sine
    return torch.cat([moved.to(x.dtype), x[..., width:]], dim=-1)
