"""Ridge regression, solved to its minimum, as other tools find it too.

The objective is that of scikit-learn's ``Ridge``, on standardised features: ``sum of squared errors
+ alpha * |w|**2`` for each target separately, without a penalty on the intercept.

Letters: N samples, D width, K targets.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mimsuite.evaluate.probes.logistic import standardisation

PENALTIES = tuple(10.0**power for power in range(5, -4, -1))  # alpha, strongest first


@dataclass(frozen=True)
class Ridge:
    """Fitted (D, K) weights and (K,) intercepts, with their feature standardisation."""

    weight: Tensor
    bias: Tensor
    mean: Tensor
    scale: Tensor

    def predict(self, features: Tensor) -> Tensor:
        """(N, D) raw features -> (N, K) float64."""
        return (features.double() - self.mean) * self.scale @ self.weight + self.bias


def fit_path(features: Tensor, targets: Tensor, penalties: Sequence[float]) -> list[Ridge]:
    """The minimum for each alpha; each target is fitted on the samples where it is known.

    Args:
        features: (N, D); standardised here by their mean and deviation.
        targets: (N, K); NaN = not known.
    """
    mean, scale = (value.double() for value in standardisation(features))
    rows, wanted = (features.double() - mean) * scale, targets.double()
    weights = rows.new_zeros(len(penalties), rows.shape[1], wanted.shape[1])
    biases = rows.new_zeros(len(penalties), wanted.shape[1])
    known = ~wanted.isnan()
    patterns, which = torch.unique(known.T, dim=0, return_inverse=True)
    for number, pattern in enumerate(patterns):
        columns = (which == number).nonzero()[:, 0]
        if pattern.any():
            fitted = _minima(rows[pattern], wanted[pattern][:, columns], penalties)
            weights[:, :, columns], biases[:, columns] = fitted
    return [Ridge(w, b, mean, scale) for w, b in zip(weights, biases, strict=True)]


def _minima(rows: Tensor, wanted: Tensor, penalties: Sequence[float]) -> tuple[Tensor, Tensor]:
    """((A, D, k), (A, k)) for A penalties, from one eigendecomposition."""
    centre, level = rows.mean(0), wanted.mean(0)
    values, vectors = torch.linalg.eigh((rows - centre).T @ (rows - centre))  # (D,), (D, D)
    turned = vectors.T @ ((rows - centre).T @ (wanted - level))  # (D, k)
    alphas = torch.tensor(penalties, dtype=rows.dtype, device=rows.device)
    weights = vectors @ (turned / (values.clamp(min=0) + alphas[:, None])[:, :, None])
    return weights, level - centre @ weights
