"""Block-wise masking (BEiT, Bao et al., arXiv:2106.08254, algorithm 1; as in CAE's code).

Rectangles are drawn until exactly the wanted number of patches is masked. How many draws that takes
differs from sample to sample, 10 to 20 mostly and some hundred now and then, so this sampler works
on the host, sample by sample: a device would have to run the longest loop for every sample, some
thousand kernel starts a step. It never waits for the device, for the noise of a step is computed on
the host too (:meth:`mimsuite.noise.Noise.on_host`); 64 samples take 4 ms, while the device is busy
with the step before.
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
_MOST_DRAWS = 50_000  # for one mask; a count that can be reached takes some hundred at most
_REHEARSALS = 4  # masks drawn to see whether a count can be reached


class BlockSampler(Sampler):
    """Masks rectangles of patches; the tokens of each part are in raster order."""

    section: BlockMaskSection
    on_host = True

    def __init__(self, section: BlockMaskSection) -> None:
        super().__init__(section)
        self._generator = KeyedGenerator()

    def noise_width(self, grid: tuple[int, ...]) -> int:
        """Two numbers, 46 bits, are the key of a sample's generator."""
        return 2

    def __call__(
        self, noise: Tensor, grid: tuple[int, ...], guide: Tensor | None = None
    ) -> TokenMask:
        """Masks of a (rows, columns) grid; ``noise`` (B, 2) and the mask are on the host.

        Raises:
            UserError: the count cannot be reached.
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
        """Refuse counts that blocks of this shape do not add up to on ``grid``.

        Raises:
            UserError: the message names the keys.
        """
        for number in range(_REHEARSALS):
            self.draw((number, 0.0), *grid)

    def _size(self, numbers: list[float], left: int) -> tuple[int, int]:
        """(height, width) of a block, while ``left`` patches are to be masked."""
        section = self.section
        largest = left if section.max_block is None else min(left, section.max_block)
        # With fewer left than `min_block` this goes downwards, as published.
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
        wanted = f"mask.count {section.count}" if section.count else f"mask.ratio {section.ratio}"
        return (
            f"{wanted} masks {count} of {rows} x {columns} patches, which blocks of "
            f"mask.min_block {section.min_block} patches and mask.aspect {section.aspect[0]:g} to "
            f"{section.aspect[1]:g} do not add up to: change one of them"
        )
