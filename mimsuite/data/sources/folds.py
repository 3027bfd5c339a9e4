"""Cross-validation: a split cut into parts of equal size, class by class.

The parts are the same for every seed and model, so that figures over seeds and models are paired.
"""

from __future__ import annotations

import numpy as np

from mimsuite.data.source import Source
from mimsuite.data.sources.few import Subset
from mimsuite.noise import keyed_rng


def fold_numbers(labels: np.ndarray, folds: int) -> np.ndarray:
    """(N,) which part each of (N,) labelled samples is in; -1 = unlabelled is a class as others.

    Sizes of a part differ by at most one within a class.
    """
    number = np.empty(len(labels), dtype=np.int64)
    start = 0
    for label in np.unique(labels):
        rows = keyed_rng("folds", folds, int(label)).permutation(np.flatnonzero(labels == label))
        number[rows] = (start + np.arange(len(rows))) % folds  # what is over goes on where it ended
        start += len(rows)
    return number


def split_fold(source: Source, folds: int, fold: int) -> tuple[Source, Source]:
    """(all parts but ``fold``, that part)."""
    labels = source.labels() if source.labelled else np.full(len(source), -1)
    held = fold_numbers(labels, folds) == fold
    return Subset(source, np.flatnonzero(~held)), Subset(source, np.flatnonzero(held))
