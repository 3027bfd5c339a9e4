"""Multi-block masking (I-JEPA, Assran et al., arXiv:2301.08243, section 3; as in its code).

Per image, several target rectangles are predicted from one large context rectangle, from which the
targets are removed. Sizes are drawn once per step for all samples and ranks, positions for each
sample. A rectangle never touches the last row or the last column, as published.

Contexts of different lengths are cut to one length: their last patches in raster order are dropped.

A context that keeps too few patches is drawn again; after every 20 failed tries one target less is
removed from it. So a context may hold tokens of a target, as published; this is rare on published
grids.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from mimsuite.config.keys.masks import MultiBlockMaskSection
from mimsuite.errors import UserError
from mimsuite.masking.mask import TokenMask
from mimsuite.masking.sampler import on_device
from mimsuite.noise import KeyedGenerator, Noise

Size = tuple[int, int]  # height, width of a rectangle, in patches
Corner = Callable[[Size], tuple[int, int]]  # draws (top, left) for a rectangle

_TRIES = 20  # draws of a context before one target less is removed from it


@dataclass(frozen=True)
class Blocks:
    """Ascending patch ids of one sample: its targets, and its contexts before they are cut."""

    targets: list[np.ndarray]
    contexts: list[np.ndarray]


class MultiBlockSampler:
    """Draws the masks of a batch, on the host."""

    def __init__(self, section: MultiBlockMaskSection) -> None:
        self.section = section
        self._generator = KeyedGenerator()

    def sample(self, noise: Noise, grid: Size) -> dict[str, TokenMask]:
        """Context name -> mask on the device of the noise; all masks have the same targets.

        Sizes are keyed by (seed, step), positions by the sample as well.

        Raises:
            UserError: the grid is too small for the blocks.
        """
        target, context = noise.shared("block sizes", 2)
        sizes = self.sizes(grid, float(target), float(context))
        drawn = [
            self.draw(grid, *sizes, self._corners(tuple(key), grid))
            for key in noise.on_host("mask", 2).tolist()
        ]
        masks = self.cut(drawn, grid)
        return {name: on_device(mask, noise.device) for name, mask in masks.items()}

    def sizes(self, grid: Size, target: float, context: float) -> tuple[Size, Size]:
        """Sizes of targets and of contexts, each decided by a number in [0, 1).

        Raises:
            UserError: the grid is too small for the blocks.
        """
        section = self.section
        sizes = section.size(grid, target, "target"), section.size(grid, context, "context")
        if math.prod(sizes[0]) <= section.min_keep or math.prod(sizes[1]) < section.least:
            try:
                section.check_grid(grid)
            except ValueError as error:
                raise UserError(str(error)) from None
        return sizes

    def draw(self, grid: Size, target: Size, context: Size, corner: Corner) -> Blocks:
        """Draw the targets, then the contexts of one sample; ``corner`` draws their positions."""
        section = self.section
        ids = np.arange(math.prod(grid)).reshape(grid)
        free = np.ones((section.targets + 1, *grid), dtype=bool)  # [n]: not in the first n targets
        targets, contexts = [], []
        for number in range(section.targets):
            window = _window(corner(target), target)
            targets.append(ids[window].ravel())
            free[(slice(number + 1, None), *window)] = False
        for _ in range(section.contexts):
            tries, taken_out = 0, 0 if section.overlap else section.targets
            while True:
                window = _window(corner(context), context)
                kept = ids[window][free[taken_out][window]]
                if len(kept) >= section.least:
                    break
                tries += 1
                if tries % _TRIES == 0:
                    taken_out = max(taken_out - 1, 0)
            contexts.append(kept)
        return Blocks(targets, contexts)

    def cut(self, drawn: list[Blocks], grid: Size) -> dict[str, TokenMask]:
        """The masks of a batch; contexts are cut to one length, dropping their last patches."""
        targets = torch.from_numpy(np.stack([blocks.targets for blocks in drawn], axis=1))
        shortest = min(len(context) for blocks in drawn for context in blocks.contexts)
        length = self.section.context_tokens or shortest
        masks = {}
        for number in range(self.section.contexts):
            rows = np.stack([blocks.contexts[number][:length] for blocks in drawn])
            name = "image" if self.section.contexts == 1 else f"context{number + 1}"
            masks[name] = TokenMask.from_visible(torch.from_numpy(rows), grid, targets)
        return masks

    def _corners(self, key: tuple[float, ...], grid: Size) -> Corner:
        """Draws the positions of one sample, one after another; a pure function of ``key``."""
        generator = self._generator("multi-block mask", *key)

        def corner(size: Size) -> tuple[int, int]:
            down, right = generator.random(2).tolist()
            return int(down * (grid[0] - size[0])), int(right * (grid[1] - size[1]))

        return corner


def _window(corner: tuple[int, int], size: Size) -> tuple[slice, slice]:
    (top, left), (height, width) = corner, size
    return slice(top, top + height), slice(left, left + width)
