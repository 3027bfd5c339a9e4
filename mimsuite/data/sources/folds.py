"""Cross-validation: a split divided into folds of equal size, stratified by class.

The folds are the same for every seed and model, so results can be compared in pairs.
"""

from __future__ import annotations

import numpy as np

from mimsuite.data.source import Source
from mimsuite.data.sources.few import Subset
from mimsuite.noise import keyed_rng


def fold_numbers(labels: np.ndarray, folds: int) -> np.ndarray:
    """(N,) fold number of each sample by its (N,) label; -1 = unlabelled counts as a class.

    Within a class, fold sizes differ by at most one.
    """
    number = np.empty(len(labels), dtype=np.int64)
    start = 0
    for label in np.unique(labels):
        rows = keyed_rng("folds", folds, int(label)).permutation(np.flatnonzero(labels == label))
        # Each class starts in the fold after the last one used, so that all folds fill evenly.
        number[rows] = (start + np.arange(len(rows))) % folds
        start += len(rows)
    return number


def split_fold(source: Source, folds: int, fold: int) -> tuple[Source, Source]:
    """(all folds but ``fold``, that fold)."""
    labels = source.labels() if source.labelled else np.full(len(source), -1)
    held = fold_numbers(labels, folds) == fold
    return Subset(source, np.flatnonzero(~held)), Subset(source, np.flatnonzero(held))
