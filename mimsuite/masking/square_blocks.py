"""Squares of patches until the count is exact (data2vec 2.0, Baevski et al., arXiv:2212.07525,
section 3.2; as in its code).

Squares around random centres cover about the wanted share of the patches. Then patches are taken
away from them, or single ones are added, by a uniform draw, so that exactly the wanted number is
covered: published masks have the squares visible and hide the rest ("inverse block masking").
"""

from __future__ import annotations

import torch
from torch import Tensor

from mimsuite.config.keys.masks import SquareBlockMaskSection
from mimsuite.masking.mask import TokenMask
from mimsuite.masking.sampler import Sampler


class SquareBlockSampler(Sampler):
    """Tokens of each part are in raster order."""

    section: SquareBlockMaskSection

    def noise_width(self, grid: tuple[int, ...]) -> int:
        """A number for each centre and one for each patch."""
        tokens = grid[0] * grid[1]
        return self.section.centres(tokens) + tokens

    def __call__(
        self, noise: Tensor, grid: tuple[int, ...], guide: Tensor | None = None
    ) -> TokenMask:
        """Masks of a (rows, columns) grid."""
        tokens = grid[0] * grid[1]
        count = self.section.centres(tokens)
        centres = (noise[:, :count] * tokens).long().clamp_max(tokens - 1)
        # What squares cover comes first, in random order, then the others.
        scores = self.covered(centres, (grid[0], grid[1])).float() + noise[:, count:]
        order = scores.argsort(dim=1, descending=True, stable=True)
        goal = self.section.covered(tokens)
        kept, rest = (part.sort(dim=1).values for part in order.split([goal, tokens - goal], dim=1))
        visible, masked = (kept, rest) if self.section.squares == "visible" else (rest, kept)
        return TokenMask(grid, visible, masked)

    def covered(self, centres: Tensor, grid: tuple[int, int]) -> Tensor:
        """(B, N) bool: within a square around one of the centres, (B, C) ids of patches."""
        rows, columns = grid
        side = self.section.side
        offsets = torch.arange(side, device=centres.device) - side // 2
        row = (centres // columns)[:, :, None, None] + offsets[:, None]  # (B, C, side, 1)
        column = (centres % columns)[:, :, None, None] + offsets  # (B, C, 1, side)
        # Beyond the border lies the border, which the square covers too.
        ids = row.clamp(0, rows - 1) * columns + column.clamp(0, columns - 1)
        found = torch.zeros(len(centres), rows * columns, dtype=torch.bool, device=centres.device)
        return found.scatter(1, ids.flatten(1), True)
