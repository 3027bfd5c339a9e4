"""Cached features as rows: read in batches, in order or shuffled."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from mimsuite.dictionaries.scaling import Scaling
from mimsuite.noise import keyed_rng

_BLOCK = 4096  # rows that are read in one piece
_TOGETHER = 16  # blocks that are shuffled into each other


class Rows:
    """Rows (M, D) of a table in float16, most likely a file mapped into memory.

    Args:
        table: (N, T, D), T rows an image.
        scaling: what rows are brought to.
    """

    def __init__(self, table: np.ndarray, scaling: Scaling, device: torch.device) -> None:
        self.images, self.per_image = table.shape[:2]
        self._table = table.reshape(-1, table.shape[2])
        self._scaling, self._device = scaling.to(device), device

    def __len__(self) -> int:
        return len(self._table)

    def batches(self, size: int) -> Iterator[Tensor]:
        """(B, D) float32, in order; the last may be smaller."""
        for start in range(0, len(self), size):
            yield self._bring(self._table[start : start + size])

    def image(self, number: int) -> Tensor:
        """(T, D) rows of one image."""
        start = number * self.per_image
        return self._bring(self._table[start : start + self.per_image])

    def some(self, count: int, seed: int) -> Tensor:
        """(count, D) rows, drawn without repetition; all where there are fewer."""
        chosen = keyed_rng(seed, "dictionary rows").permutation(len(self))[:count]
        return self._bring(self._table[np.sort(chosen)])

    def shuffled(self, size: int, seed: int, epoch: int) -> Iterator[Tensor]:
        """Full batches (size, D) of an epoch; the rest of it is left out.

        Blocks are read in one piece, in random order, and shuffled into each other, so that a
        table larger than memory is not read all over for each batch.
        """
        rng = keyed_rng(seed, "dictionary order", epoch)
        starts = rng.permutation(np.arange(0, len(self), _BLOCK))
        left = np.zeros((0, self._table.shape[1]), self._table.dtype)
        for first in range(0, len(starts), _TOGETHER):
            blocks = [self._table[s : s + _BLOCK] for s in starts[first : first + _TOGETHER]]
            pool = np.concatenate([left, *blocks])
            rng.shuffle(order := np.arange(len(pool)))
            full = len(pool) // size * size
            for at in range(0, full, size):
                yield self._bring(pool[order[at : at + size]])
            left = pool[order[full:]]

    def steps(self, size: int) -> int:
        """Full batches of an epoch."""
        return len(self) // size

    def _bring(self, rows: np.ndarray) -> Tensor:
        return self._scaling.scaled(torch.from_numpy(np.array(rows)).to(self._device))
