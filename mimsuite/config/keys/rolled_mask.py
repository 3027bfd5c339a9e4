"""`mask:` one block that rolls over the borders. Nothing here imports torch."""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import Field

from mimsuite.config.keys.section import Range, Section

_LARGEST = 128  # side of a grid that is proposed


class RolledBlockMaskSection(Section):
    """`mask:` one block of each image stays visible and is rolled over the borders; a part of the
    rest is predicted (CAPI).

    The block is a rectangle, less what its last row has too many. With `block masked` it is what is
    hidden.
    """

    kind: Literal["rolled-block"] = "rolled-block"
    ratio: Annotated[float, Field(gt=0.0, lt=1.0)]  # hidden from the encoder
    block: Literal["visible", "masked"] = "visible"  # what the block is
    aspect: Range = (0.5, 2.0)  # height / width of the rectangle, drawn evenly in its logarithm
    roll: bool = True  # over the borders, by a random number of rows and columns
    predicted: Annotated[float, Field(gt=0.0, le=1.0)] = 0.05  # share of the hidden patches

    def masked(self, tokens: int) -> int:
        """How many tokens are hidden: ``int(N * ratio)`` in float64, as published."""
        return int(tokens * self.ratio)

    def decoded(self, tokens: int) -> int:
        """How many of them are predicted."""
        return int(self.masked(tokens) * self.predicted)

    def in_block(self, tokens: int) -> int:
        """How many tokens the block has."""
        masked = self.masked(tokens)
        return tokens - masked if self.block == "visible" else masked

    def aspects(self, grid: tuple[int, int]) -> tuple[float, float]:
        """Logarithms of the least and the greatest aspect that fits into the grid."""
        (rows, columns), size = grid, self.in_block(grid[0] * grid[1])
        low = max(math.log(self.aspect[0]), math.log(size / columns**2))
        return low, min(math.log(self.aspect[1]), math.log(rows**2 / (size + 1e-5)))

    def require_grid(self, grid: tuple[int, int]) -> None:
        """Refuse, with ``ValueError``, a grid that leaves nothing to see or nothing to predict, or
        that the block does not fit into."""
        if fault := self._fault(grid):
            sides = (n for n in range(2, _LARGEST) if not self._fault((n, n)))
            side = next(sides, None)
            mend = (
                "" if side is None else f"; the smallest square grid that works is {side} x {side}"
            )
            raise ValueError(f"mask on {grid[0]} x {grid[1]} patches: {fault}{mend}")

    def _fault(self, grid: tuple[int, int]) -> str:
        """What does not work on a grid; empty where all does."""
        tokens = grid[0] * grid[1]
        if not 0 < self.masked(tokens) < tokens:
            seen = "see" if self.masked(tokens) else "predict"
            return f"ratio {self.ratio:g} leaves nothing to {seen}"
        if not self.decoded(tokens):
            return (
                f"predicted {self.predicted:g} of {self.masked(tokens)} hidden ones leaves nothing "
                f"to predict"
            )
        low, high = self.aspects(grid)
        if low > high:
            ends = f"{self.aspect[0]:g} to {self.aspect[1]:g}"
            return f"no block of {self.in_block(tokens)} at an aspect of {ends} fits"
        return ""
