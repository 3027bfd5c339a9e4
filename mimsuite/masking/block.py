"""Block-wise masking (BEiT, Bao et al., arXiv:2106.08254, algorithm 1; as in CAE's code).

Rectangles are drawn until exactly the required number of patches is masked. The number of draws
varies from sample to sample: mostly 10 to 20, sometimes a few hundred. So this sampler runs on the
host, sample by sample; on the device every sample would run the longest loop, about a thousand
kernel launches per step. It never waits for the device, because its noise is also computed on the
host (:meth:`mimsuite.noise.Noise.on_host`). A batch of 64 samples takes 4 ms, while the device
computes the previous step.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from mimsuite.config.keys.masks import BlockMaskSection
from mimsuite.errors import UserError
from mimsuite.masking.mask import TokenMask
from mimsuite.masking.sampler import Sampler
from mimsuite.noise import KeyedGenerator

_AT_ONCE = 64  # blocks whose numbers are drawn together
_MOST_DRAWS = 50_000  # draws per mask; a reachable count needs a few hundred at most
_REHEARSALS = 4  # masks drawn to check that a count is reachable


class BlockSampler(Sampler):
    """Masks rectangles of patches; visible and masked tokens are each in raster order."""

    section: BlockMaskSection
    on_host = True

    def __init__(self, section: BlockMaskSection) -> None:
        super().__init__(section)
        self._generator = KeyedGenerator()

    def noise_width(self, grid: tuple[int, ...]) -> int:
        """Two numbers (46 bits), the key of a sample's generator."""
        return 2

    def __call__(
        self, noise: Tensor, grid: tuple[int, ...], guide: Tensor | None = None
    ) -> TokenMask:
        """Mask of a (rows, columns) grid; ``noise`` (B, 2) and the mask are on the host.

        Raises:
            UserError: no set of blocks masks exactly the required number of patches.
        """
        rows, columns = grid
        masks = np.stack([self.draw(tuple(key), rows, columns) for key in noise.tolist()])
        return TokenMask.from_removed(torch.from_numpy(masks).flatten(1), grid)

    def draw(self, key: tuple[float, ...], rows: int, columns: int) -> np.ndarray:
        """One mask, (rows, columns) bool, True = masked; a pure function of ``key``."""
        section = self.section
        mask = np.zeros((rows, columns), dtype=bool)
        left = rows * columns - section.visible(rows * columns)
        if left > rows * columns:
            raise UserError(self._unreachable(rows, columns))
        draws = self._uniform(key)
        while left:
            numbers = next(draws, None)
            if numbers is None:
                raise UserError(self._unreachable(rows, columns))
            height, width = self._size(numbers, left)
            if not (height < rows and width < columns):
                continue
            top = int(numbers[2] * (rows - height + 1))
            start = int(numbers[3] * (columns - width + 1))
            block = mask[top : top + height, start : start + width]
            added = height * width - int(block.sum())
            if 0 < added <= left:
                block[:] = True
                left -= added
        return mask

    def require_reachable(self, grid: tuple[int, int]) -> None:
        """Refuse mask counts that no set of blocks of this shape reaches exactly on ``grid``.

        Raises:
            UserError: the message names the keys.
        """
        for number in range(_REHEARSALS):
            self.draw((number, 0.0), *grid)

    def _size(self, numbers: list[float], left: int) -> tuple[int, int]:
        """(height, width) of the next block; ``left`` patches remain to be masked."""
        section = self.section
        largest = left if section.max_block is None else min(left, section.max_block)
        # With fewer than `min_block` left, the area falls below `min_block`, as published.
        area = section.min_block + (largest - section.min_block) * numbers[0]
        low, high = (math.log(end) for end in section.aspect)
        aspect = math.exp(low + (high - low) * numbers[1])
        return round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))

    def _uniform(self, key: tuple[float, ...]) -> Iterator[list[float]]:
        """Four numbers in [0, 1) for each block: area, aspect, row, column."""
        generator = self._generator("block mask", *key)
        for _ in range(_MOST_DRAWS // _AT_ONCE):
            yield from generator.random((_AT_ONCE, 4)).tolist()

    def _unreachable(self, rows: int, columns: int) -> str:
        section = self.section
        count = rows * columns - section.visible(rows * columns)
        setting = f"mask.count {section.count}" if section.count else f"mask.ratio {section.ratio}"
        return (
            f"{setting} masks {count} of {rows} x {columns} patches, which blocks of "
            f"mask.min_block {section.min_block} patches and mask.aspect {section.aspect[0]:g} to "
            f"{section.aspect[1]:g} do not add up to: change one of them"
        )
