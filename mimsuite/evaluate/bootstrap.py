"""Paired bootstrap: is one model better than another on the same test samples?

Both models are scored on the same samples, and seed i of one is compared with seed i of the other.
Sample difficulty and seed effects that both share cancel (Efron & Tibshirani, "An Introduction to
the Bootstrap", 1993, chapters 8 and 13: percentile interval). Seeds and samples are resampled with
replacement, so the interval covers both kinds of chance; with one seed, only the samples.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
import torch
from torch import Tensor

from mimsuite.noise import keyed_rng

_DRAWS = 2000


@dataclass(frozen=True)
class Interval:
    """A difference of two means with its percentile interval.

    Attributes:
        difference: mean of ``ours`` minus mean of ``theirs``.
        low, high: bounds of the interval.
        confidence: its coverage, e.g. 0.95.
        seeds, samples: number of seeds and samples that were resampled.
    """

    difference: float
    low: float
    high: float
    confidence: float
    seeds: int
    samples: int

    def as_dict(self) -> dict[str, float]:
        return asdict(self)


def paired_interval(
    ours: Tensor,
    theirs: Tensor,
    *,
    weights: Tensor | None = None,
    confidence: float = 0.95,
    draws: int = _DRAWS,
    seed: int = 0,
) -> Interval:
    """Interval of the mean difference.

    Args:
        ours: (S, N) or (N,) score of each test sample under each of S seeds; bool: right or wrong.
        theirs: scores of the other model, same shape, seeds and samples.
        weights: (N,) weight of a sample in the mean: ``1 / (K * count of its class)`` gives
            class-balanced accuracy; ``None``: equal weights.

    Raises:
        ValueError: shapes that differ.
    """
    if ours.shape != theirs.shape:
        raise ValueError(f"not paired: {tuple(ours.shape)} and {tuple(theirs.shape)}")
    gain = (ours.double() - theirs.double()).reshape(-1, ours.shape[-1]).cpu().numpy()  # (S, N)
    seeds, samples = gain.shape
    weight = np.ones(samples) if weights is None else weights.double().cpu().numpy()
    rng = keyed_rng(seed, "bootstrap", seeds, samples)
    means = np.empty(draws)
    for draw in range(draws):
        row_counts = np.bincount(rng.integers(seeds, size=seeds), minlength=seeds)
        counts = np.bincount(rng.integers(samples, size=samples), minlength=samples) * weight
        means[draw] = row_counts @ gain @ counts / (seeds * counts.sum())
    tail = (1 - confidence) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    difference = float((gain.mean(0) @ weight) / weight.sum())
    return Interval(difference, float(low), float(high), confidence, seeds, samples)


def balancing_weights(labels: Tensor) -> Tensor:
    """(N,) float64 sample weights whose weighted mean is class-balanced accuracy."""
    _, which, counts = torch.unique(labels, return_inverse=True, return_counts=True)
    return (1.0 / (len(counts) * counts.double()))[which]
