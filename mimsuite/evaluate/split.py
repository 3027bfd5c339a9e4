"""Hold out a stratified part of a labelled set."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from mimsuite.noise import keyed_rng


def stratified_holdout(
    labels: Tensor, fraction: float, seed: int, purpose: str = "validation"
) -> tuple[Tensor, Tensor]:
    """Split row numbers into kept and held-out rows.

    For a class of n samples, ``fraction * n``, rounded, are held out: at least 1 and at most n - 1
    if n > 1, none if n = 1. The draw is keyed by (seed, purpose, class).

    Args:
        labels: (N,) int64, all labelled.

    Returns:
        (kept, held out): int64 row numbers, ascending.
    """
    numbers = labels.cpu().numpy()
    held = []
    for label in np.unique(numbers):
        rows = np.flatnonzero(numbers == label)
        if len(rows) > 1:
            count = min(max(round(fraction * len(rows)), 1), len(rows) - 1)
            held.append(keyed_rng(seed, purpose, int(label)).permutation(rows)[:count])
    chosen = np.sort(np.concatenate(held)) if held else np.zeros(0, dtype=np.int64)
    kept = np.setdiff1d(np.arange(len(numbers)), chosen)
    return torch.from_numpy(kept), torch.from_numpy(chosen)
