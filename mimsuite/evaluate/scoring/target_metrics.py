"""Regression and multilabel metrics, as defined by scikit-learn.

Letters: N samples, K targets per sample. NaN truth is unknown and ignored.
"""

from __future__ import annotations

import numpy as np

_PRESENT = 0.5  # lowest probability at which a label is predicted


def regression_figures(predicted: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """``mae``, ``rmse``, ``r2`` and ``spearman``, each averaged over the K targets."""
    table = regression_columns(predicted, truth)
    return {name: float(np.mean(values)) for name, values in table.items()}


def regression_columns(predicted: np.ndarray, truth: np.ndarray) -> dict[str, list[float]]:
    """The same figures per target; targets without known truth are left out.

    Args:
        predicted, truth: (N, K).
    """
    found: dict[str, list[float]] = {"mae": [], "rmse": [], "r2": [], "spearman": []}
    for guess, true in zip(predicted.T.astype(float), truth.T.astype(float), strict=True):
        known = ~np.isnan(true)
        if known.any():
            for name, value in _of_column(guess[known], true[known]).items():
                found[name].append(value)
    return found


def _of_column(guess: np.ndarray, true: np.ndarray) -> dict[str, float]:
    error = guess - true
    squared = float(np.mean(error**2))
    spread = float(np.mean((true - true.mean()) ** 2))
    constant = 1.0 if squared == 0 else 0.0  # R2 for constant truth, as in scikit-learn
    return {
        "mae": float(np.mean(np.abs(error))),
        "rmse": squared**0.5,
        "r2": 1 - squared / spread if spread > 0 else constant,
        "spearman": spearman(guess, true),
    }


def spearman(one: np.ndarray, other: np.ndarray) -> float:
    """Rank correlation of (N,) numbers; equal numbers get their mean rank. 0 if either is constant,
    so that it can be averaged and compared."""
    first, second = (_ranks(values) for values in (one, other))
    first, second = first - first.mean(), second - second.mean()
    scale = float(np.sqrt((first**2).sum() * (second**2).sum()))
    return float((first * second).sum() / scale) if scale > 0 else 0.0


def _ranks(values: np.ndarray) -> np.ndarray:
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    ranks: np.ndarray = (ends - (counts - 1) / 2)[place]
    return ranks


def multilabel_figures(scores: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """``map``, the mean average precision over labels that occur; ``f1_micro`` and ``f1_macro``
    over all K labels, predicted at probability 0.5.

    Args:
        scores: (N, K) probabilities.
        truth: (N, K) 0 or 1.
    """
    precisions = average_precisions(scores, truth)
    some = precisions[~np.isnan(precisions)]
    f1, micro = f1_scores(scores, truth)
    return {
        "map": float(some.mean()) if len(some) else 0.0,
        "f1_micro": micro,
        "f1_macro": float(f1.mean()),
    }


def average_precisions(scores: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """(K,) average precision: sum over thresholds of precision times the gain in recall; equal
    scores share a threshold. NaN for labels that no sample has."""
    order = np.argsort(-scores, axis=0, kind="stable")
    sorted_scores = np.take_along_axis(scores, order, 0)
    true = np.take_along_axis(truth, order, 0).astype(float)
    found, seen = true.cumsum(0), np.arange(1, len(true) + 1)[:, None]
    # Equal scores all take the precision at the last of them.
    last = np.ones(true.shape, dtype=bool)
    last[:-1] = sorted_scores[:-1] != sorted_scores[1:]
    rows = np.where(last, np.arange(len(true))[:, None], len(true) - 1)
    ends = np.minimum.accumulate(rows[::-1], axis=0)[::-1]
    precision = np.take_along_axis(found / seen, ends, 0)
    with np.errstate(invalid="ignore"):
        return np.asarray((precision * true).sum(0) / true.sum(0))


def f1_scores(scores: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, float]:
    """((K,) F1 of each label, micro F1); 0 for a label that neither occurs nor is predicted."""
    guess, true = scores >= _PRESENT, truth > 0
    right = (guess & true).sum(0).astype(float)
    both = guess.sum(0) + true.sum(0)
    single = np.divide(2 * right, both, out=np.zeros_like(right), where=both > 0)
    return single, float(2 * right.sum() / both.sum()) if both.sum() else 0.0
