"""Blocks of a clip in several sets (V-JEPA, arXiv:2404.08471, section 3.2; as in its code).

A set covers a part of the clip with blocks of one size. What they cover is predicted, what none of
them covers is seen. Sizes are drawn once a step for all samples, on any rank; places for each
sample. A sample that leaves nothing to see is drawn again.

Lists of ids rise, and are cut to one length by their last tokens. Tokens in neither list are
masked, and nobody asks for them.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch

from mimsuite.config.keys.masks import ClipBlocksMaskSection, ClipBlocksSection
from mimsuite.errors import UserError
from mimsuite.masking.mask import TokenMask
from mimsuite.masking.sampler import on_device
from mimsuite.noise import KeyedGenerator, Noise

Size = tuple[int, int, int]  # frames, height, width in tokens
Place = Callable[[Size], tuple[int, int, int]]  # draws (top, left, start) of a block
Drawn = tuple[np.ndarray, np.ndarray]  # rising ids of a sample: to see, to predict

_TRIES = 10_000  # draws per sample before its set is given up


class ClipBlockSampler:
    """Draws the masks of a batch, on the host."""

    def __init__(self, section: ClipBlocksMaskSection) -> None:
        self.section = section
        self._generator = KeyedGenerator()

    def sample(self, noise: Noise, grid: Size) -> dict[str, TokenMask]:
        """A mask for each set, ``set1`` and on, with one target set; on the noise's device.

        Sizes are keyed by (seed, step), places by the sample too.

        Raises:
            UserError: no draw leaves as many tokens as the recipe fixes.
        """
        keys = noise.on_host("mask", 2).tolist()
        masks = {}
        for number, blocks in enumerate(self.section.sets, start=1):
            time, scale, aspect = noise.shared(f"block sizes {number}", 3)
            size = blocks.size(grid, float(time), float(scale), float(aspect))
            drawn = [self.draw(blocks, grid, size, self._places(number, key, grid)) for key in keys]
            masks[f"set{number}"] = on_device(self.cut(blocks, drawn, grid), noise.device)
        return masks

    def draw(self, blocks: ClipBlocksSection, grid: Size, size: Size, place: Place) -> Drawn:
        """One sample, at the places that ``place`` draws."""
        late = max(1, int(grid[0] * blocks.context_time))
        for _ in range(_TRIES):
            free = np.ones(grid, dtype=bool)
            for _ in range(blocks.blocks):
                top, left, start = place(size)
                frames, height, width = size
                free[start : start + frames, top : top + height, left : left + width] = False
            free[late:] = False
            seen, asked = np.flatnonzero(free), np.flatnonzero(~free)
            if len(seen) >= (blocks.context_tokens or 1) and len(asked) >= (
                blocks.target_tokens or 1
            ):
                return seen, asked
        raise UserError(
            f"mask: {_TRIES} draws of blocks of {size[0]} x {size[1]} x {size[2]} tokens on "
            f"{grid[0]} x {grid[1]} x {grid[2]} left fewer to see or to predict than wanted: lower "
            f"context_tokens or target_tokens of the set, or its scale"
        )

    def cut(self, blocks: ClipBlocksSection, drawn: list[Drawn], grid: Size) -> TokenMask:
        """The mask of a batch: lists of one length, the last tokens left out."""
        length = blocks.context_tokens or min(len(seen) for seen, _ in drawn)
        length = min(length, blocks.max_context or length)
        asked_length = blocks.target_tokens or min(len(asked) for _, asked in drawn)
        seen = np.stack([ids[:length] for ids, _ in drawn])
        asked = np.stack([ids[:asked_length] for _, ids in drawn])
        if blocks.complement == "target":
            asked = _others(seen, grid)
        if blocks.complement == "context":
            seen = _others(asked, grid)
        if blocks.inverse:
            seen, asked = asked, seen
        return TokenMask.from_visible(torch.from_numpy(seen), grid, torch.from_numpy(asked)[None])

    def _places(self, number: int, key: list[float], grid: Size) -> Place:
        """Of one sample, a pure function of ``key``, in the order they are asked for."""
        generator = self._generator("clip blocks", number, *key)

        def place(size: Size) -> tuple[int, int, int]:
            frames, height, width = size
            free = (grid[1] - height, grid[2] - width, grid[0] - frames)
            down, right, late = generator.random(3).tolist()
            return (
                int(down * (free[0] + 1)),
                int(right * (free[1] + 1)),
                int(late * (free[2] + 1)),
            )

        return place


def _others(ids: np.ndarray, grid: Size) -> np.ndarray:
    """(B, N - K) rising ids that are not among (B, K)."""
    left = np.ones((len(ids), math.prod(grid)), dtype=bool)
    np.put_along_axis(left, ids, False, axis=1)
    return np.nonzero(left)[1].reshape(len(ids), -1)
