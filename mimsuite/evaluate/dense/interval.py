"""Paired bootstrap of figures computed from per-image counts, as in
:mod:`mimsuite.evaluate.bootstrap`.

Letters: S seeds, N images.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mimsuite.evaluate.bootstrap import Interval
from mimsuite.evaluate.dense.tasks import Task
from mimsuite.noise import keyed_rng

_DRAWS = 1000
_CONFIDENCE = 0.95


def gains(
    task: Task, ours: np.ndarray, theirs: np.ndarray, *, draws: int = _DRAWS, seed: int = 0
) -> dict[str, Interval]:
    """Percentile interval of the difference in every figure, averaged over seeds.

    Images, and seeds if there are several, are resampled with replacement, the same for both.

    Args:
        ours, theirs: (S, N, ...) counts of the same images under the same seeds.

    Raises:
        ValueError: shapes that differ.
    """
    if ours.shape != theirs.shape:
        raise ValueError(f"not paired: {ours.shape} and {theirs.shape}")
    seeds, images = ours.shape[:2]
    rng = keyed_rng(seed, "dense bootstrap", seeds, images)

    def difference(rows: Sequence[int], weights: np.ndarray) -> dict[str, float]:
        pairs = [
            (task.measure(ours[row], weights), task.measure(theirs[row], weights)) for row in rows
        ]
        return {
            figure.name: float(np.mean([one[figure.name] - two[figure.name] for one, two in pairs]))
            for figure in task.figures
        }

    whole = difference(range(seeds), np.ones(images))
    drawn: dict[str, list[float]] = {name: [] for name in whole}
    for _ in range(draws):
        rows = rng.integers(seeds, size=(seeds,)).tolist()
        weights = np.bincount(rng.integers(images, size=images), minlength=images)
        for name, value in difference(rows, weights.astype(np.float64)).items():
            drawn[name].append(value)
    tail = (1 - _CONFIDENCE) / 2
    found = {}
    for name, value in whole.items():
        low, high = np.quantile(drawn[name], [tail, 1 - tail])
        found[name] = Interval(value, float(low), float(high), _CONFIDENCE, seeds, images)
    return found
