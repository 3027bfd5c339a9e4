"""Multi-block masking (I-JEPA, Assran et al., arXiv:2301.08243, section 3; as in its code).

Of each image some rectangles are predicted, and one large one is seen, less what is predicted.
Their sizes are drawn once a step for all samples, on any rank; their places for each sample. A
place is drawn so that the rectangle never touches the last row and the last column, as published.

Contexts have different lengths and are cut to one, by their last patches in raster order.

A context that keeps too few patches is drawn again, and after 20 tries in vain one target less is
taken out of it. So a context may hold tokens of a target: published, and rare on published grids.
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

_TRIES = 20  # of a context, before one target less is taken out of it


@dataclass(frozen=True)
class Blocks:
    """Patches of one sample, ascending ids: of each target, and of each context before the cut."""

    targets: list[np.ndarray]
    contexts: list[np.ndarray]


class MultiBlockSampler:
    """Draws the masks of a batch, on the host."""

    def __init__(self, section: MultiBlockMaskSection) -> None:
        self.section = section
        self._generator = KeyedGenerator()

    def sample(self, noise: Noise, grid: Size) -> dict[str, TokenMask]:
        """A mask for each context by its name, on the noise's device; all have the same targets.

        Sizes are keyed by (seed, step), places by the sample too.

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
        """Height and width of targets and of contexts, each by a number in [0, 1).

        Raises:
            UserError: rectangles of these sizes can never be valid.
        """
        section = self.section
        found = section.size(grid, target, "target"), section.size(grid, context, "context")
        if math.prod(found[0]) <= section.min_keep or math.prod(found[1]) < section.least:
            try:
                section.check_grid(grid)
            except ValueError as error:
                raise UserError(str(error)) from None
        return found

    def draw(self, grid: Size, target: Size, context: Size, corner: Corner) -> Blocks:
        """Targets and then contexts of one sample, at the places that ``corner`` draws."""
        section = self.section
        ids = np.arange(math.prod(grid)).reshape(grid)
        free = np.ones((section.targets + 1, *grid), dtype=bool)  # [n]: outside of the first n
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
        """The masks of a batch: contexts of one length, the last patches left out."""
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
        """Places of one sample, a pure function of ``key``, in the order they are asked for."""
        generator = self._generator("multi-block mask", *key)

        def corner(size: Size) -> tuple[int, int]:
            down, right = generator.random(2).tolist()
            return int(down * (grid[0] - size[0])), int(right * (grid[1] - size[1]))

        return corner


def _window(corner: tuple[int, int], size: Size) -> tuple[slice, slice]:
    (top, left), (height, width) = corner, size
    return slice(top, top + height), slice(left, left + width)
