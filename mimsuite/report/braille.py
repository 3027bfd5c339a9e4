"""A curve as text: braille characters, of 2 x 4 dots each."""

from __future__ import annotations

import math
from collections.abc import Sequence

_EMPTY = 0x2800
# Bits of the dots by (row, column) in a character, as Unicode numbers them.
_DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))

Points = Sequence[tuple[float, float]]
Range = tuple[float, float]


def plot(points: Points, width: int, height: int, x: Range, y: Range) -> list[str]:
    """``height`` lines of ``width`` characters; what is not finite or out of range is left out.

    Args:
        points: (x, y) in ascending x; neighbours are joined by a line.
        x, y: the ranges that the area shows.
    """
    columns, rows = 2 * width, 4 * height
    cells = [[_EMPTY] * width for _ in range(height)]
    before: tuple[int, int] | None = None
    for px, py in points:
        if not (math.isfinite(py) and x[0] <= px <= x[1] and y[0] <= py <= y[1]):
            before = None
            continue
        here = _place(px, x, columns), rows - 1 - _place(py, y, rows)
        for column, row in _line(before or here, here):
            cells[row // 4][column // 2] |= _DOTS[row % 4][column % 2]
        before = here
    return ["".join(map(chr, line)) for line in cells]


def _place(value: float, span: Range, count: int) -> int:
    share = (value - span[0]) / ((span[1] - span[0]) or 1.0)
    return min(count - 1, int(share * count))


def _line(start: tuple[int, int], end: tuple[int, int]) -> list[tuple[int, int]]:
    """Dots from one to the other, the first left out unless it is the only one."""
    steps = max(abs(end[0] - start[0]), abs(end[1] - start[1]))
    if steps == 0:
        return [end]
    return [
        (
            start[0] + round(n * (end[0] - start[0]) / steps),
            start[1] + round(n * (end[1] - start[1]) / steps),
        )
        for n in range(1, steps + 1)
    ]
