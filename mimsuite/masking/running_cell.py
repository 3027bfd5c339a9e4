"""The decoder mask of VideoMAE V2 (Wang et al., arXiv:2303.16727, section 3.2, "running cell").

The grid of each frame is tiled with cells of 2 x 2 tokens; the hidden places of a cell move on by
one from frame to frame. With q = 2 * (row mod 2) + (column mod 2) and a phase s in {0, 1, 2, 3}:

    hidden(t, row, column)  iff  (q + s + t + 1) mod 4 < k,    k = 4 * ratio

This closed form equals the published tiling where rows and columns are even; it is defined for any
grid.
"""

from __future__ import annotations

from collections import Counter
from functools import lru_cache
from itertools import product

import torch
from torch import Tensor

PHASES = 4


def running_cell(
    grid: tuple[int, int, int], ratio: float, device: torch.device | str = "cpu"
) -> Tensor:
    """(4, N) bool for the four phases, True = not decoded, in raster order of (T, H, W).

    Raises:
        ValueError: ``ratio`` is not 0.25, 0.5 or 0.75.
    """
    frame, row, column = (torch.arange(length, device=device) for length in grid)
    place = 2 * (row % 2)[:, None] + column % 2  # q, (H, W)
    number = place + frame[:, None, None] + 1  # (T, H, W)
    phase = torch.arange(PHASES, device=device)[:, None]
    return (number.flatten() + phase) % PHASES < _hidden_of_cell(ratio)


def decoded_ids(grid: tuple[int, int, int], ratio: float, device: torch.device) -> Tensor:
    """(4, Nd) int64: for each phase, the ids that are decoded, in raster order.

    On grids with an odd side the phases decode different numbers of tokens; each is cut to the
    smallest number by dropping its last ids.
    """
    hidden = running_cell(grid, ratio, device).byte()
    return hidden.argsort(dim=1, stable=True)[:, : _decoded(grid, ratio)].contiguous()


@lru_cache(maxsize=64)
def _decoded(grid: tuple[int, int, int], ratio: float) -> int:
    """Nd, counted on the host so that nothing waits for the device."""
    numbers = Counter(
        (2 * (y % 2) + x % 2 + t + 1) % PHASES for t, y, x in product(*map(range, grid))
    )
    hidden = _hidden_of_cell(ratio)
    return min(
        sum(count for number, count in numbers.items() if (number + phase) % PHASES >= hidden)
        for phase in range(PHASES)
    )


def _hidden_of_cell(ratio: float) -> int:
    """k, how many of a cell's four tokens are not decoded."""
    hidden = round(PHASES * ratio)
    if not 1 <= hidden < PHASES or hidden != PHASES * ratio:
        raise ValueError(f"a cell of {PHASES} tokens cannot hide {ratio} of them")
    return hidden
