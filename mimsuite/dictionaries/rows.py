"""Cached features as rows, read in batches, in order or shuffled."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from mimsuite.dictionaries.scaling import Scaling
from mimsuite.noise import keyed_rng

_BLOCK = 4096  # rows per read
_TOGETHER = 16  # blocks that are shuffled together


class Rows:
    """Rows (M, D) of a float16 table, which may be a memory-mapped file.

    Args:
        table: (N, T, D), T rows per image.
        scaling: applied to the rows that are read.
    """

    def __init__(self, table: np.ndarray, scaling: Scaling, device: torch.device) -> None:
        self.images, self.per_image = table.shape[:2]
        self._table = table.reshape(-1, table.shape[2])
        self._scaling, self._device = scaling.to(device), device

    def __len__(self) -> int:
        return len(self._table)

    def batches(self, size: int) -> Iterator[Tensor]:
        """(B, D) float32 batches in order; the last may be smaller."""
        for start in range(0, len(self), size):
            yield self._bring(self._table[start : start + size])

    def image(self, number: int) -> Tensor:
        """(T, D) rows of one image."""
        start = number * self.per_image
        return self._bring(self._table[start : start + self.per_image])

    def some(self, count: int, seed: int) -> Tensor:
        """(count, D) rows drawn without replacement; all rows where there are fewer."""
        chosen = keyed_rng(seed, "dictionary rows").permutation(len(self))[:count]
        return self._bring(self._table[np.sort(chosen)])

    def shuffled(self, size: int, seed: int, epoch: int) -> Iterator[Tensor]:
        """Full batches (size, D) of an epoch; an incomplete last batch is dropped.

        Contiguous blocks are read in random order and shuffled together, so that a batch does not
        need reads all over a table that is larger than memory.
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
        """Number of full batches per epoch."""
        return len(self) // size

    def _bring(self, rows: np.ndarray) -> Tensor:
        return self._scaling.scaled(torch.from_numpy(np.array(rows)).to(self._device))
