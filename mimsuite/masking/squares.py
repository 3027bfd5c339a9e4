"""Masking of whole squares of patches (Pixio, arXiv:2512.15715).

The grid is cut into squares of ``side`` x ``side`` patches; each is equally likely to be masked.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mimsuite.config.keys.masks import SquareMaskSection
from mimsuite.masking.mask import TokenMask
from mimsuite.masking.sampler import Sampler


class SquareSampler(Sampler):
    """Keeps the squares with the least noise, in order of their noise; raster order inside."""

    section: SquareMaskSection

    def noise_width(self, grid: tuple[int, ...]) -> int:
        """One number per square."""
        side = self.section.side
        return (grid[0] // side) * (grid[1] // side)

    def __call__(
        self, noise: Tensor, grid: tuple[int, ...], guide: Tensor | None = None
    ) -> TokenMask:
        """Mask of (B, S) float32 noise, one number per square; ``side`` must divide ``grid``."""
        rows, columns = grid
        side = self.section.side
        ids = torch.arange(rows * columns, device=noise.device)
        ids = ids.view(rows // side, side, columns // side, side).transpose(1, 2)
        squares = ids.reshape(-1, side * side)  # (S, side * side), raster order inside
        order = squares[noise.argsort(dim=1, stable=True)].flatten(1)  # (B, N)
        return TokenMask.from_order(order, self.section.visible(rows * columns), grid)
