"""One block that rolls over the borders: "inverse block masking with roll" (CAPI, Darcet et al.,
arXiv:2502.08769, section 3; as in its code).

A rectangle of random shape and place holds just enough patches; its first ones in raster order are
the block. Then the grid is rolled by a random number of rows and of columns, so that the block
lies anywhere with equal probability, in up to four pieces at the borders. Of the patches that are
hidden, random ones in random order are predicted.

Letters: B batch, N patches, n patches of the block.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mimsuite.config.keys.rolled_mask import RolledBlockMaskSection
from mimsuite.masking.mask import TokenMask
from mimsuite.masking.sampler import Sampler

_DRAWS = 5  # random numbers per sample: aspect, place, roll


class RolledBlockSampler(Sampler):
    """Visible and masked tokens are in raster order, those that are predicted in random order."""

    section: RolledBlockMaskSection

    def noise_width(self, grid: tuple[int, ...]) -> int:
        """Of the block, and one for each masked token."""
        return _DRAWS + self.section.masked(grid[0] * grid[1])

    def __call__(
        self, noise: Tensor, grid: tuple[int, ...], guide: Tensor | None = None
    ) -> TokenMask:
        """Masks of a (rows, columns) grid."""
        size = (grid[0], grid[1])
        draws, scores = noise.double().split([_DRAWS, noise.shape[1] - _DRAWS], dim=1)
        low, high = self.section.aspects(size)
        aspects = (low + (high - low) * draws[:, 0]).exp()
        rolls = torch.tensor(size, device=noise.device)
        # As many places as the rectangle has, both ends included
        places = rolls - self.shapes(aspects, size) + 1
        whole = torch.cat([draws[:, 1:3] * places, draws[:, 3:] * rolls], dim=1).long()
        return self.mask(self.block(aspects, whole, size), scores, size)

    def shapes(self, aspects: Tensor, grid: tuple[int, int]) -> Tensor:
        """(B, 2) height and width of rectangles at (B,) float64 height / width."""
        size = self.section.in_block(grid[0] * grid[1])
        sides = torch.stack([(size * aspects).sqrt(), (size / aspects).sqrt()], dim=1).ceil()
        return sides.long().minimum(torch.tensor(grid, device=aspects.device))

    def block(self, aspects: Tensor, draws: Tensor, grid: tuple[int, int]) -> Tensor:
        """(B, n) ascending ids of each block.

        Args:
            draws: (B, 4) int64: top and left of the rectangle, rows and columns of the roll; what
                is behind the second is not read where nothing rolls.
        """
        rows, columns = grid
        cells = torch.arange(self.section.in_block(rows * columns), device=aspects.device)
        width = self.shapes(aspects, grid)[:, 1:]  # (B, 1)
        row, column = draws[:, :1] + cells // width, draws[:, 1:2] + cells % width
        if self.section.roll:
            row, column = row + draws[:, 2:3], column + draws[:, 3:4]
        return (row % rows * columns + column % columns).sort(dim=1).values

    def mask(self, block: Tensor, scores: Tensor, grid: tuple[int, int]) -> TokenMask:
        """The mask by its block; of the masked tokens those of the least (B, M) scores are
        predicted."""
        made = TokenMask.from_visible(block, grid)
        if self.section.block == "masked":
            made = made.flip()
        order = scores.argsort(dim=1)[:, : self.section.decoded(grid[0] * grid[1])]
        decoded = made.masked.gather(1, order)
        flags = torch.ones_like(decoded, dtype=torch.bool)
        return TokenMask(grid, made.visible, made.masked, decoded, flags)
