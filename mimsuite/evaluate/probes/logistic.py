"""Softmax regression with an L2 penalty, solved to its minimum, as other tools find it too.

The objective is that of scikit-learn's ``LogisticRegression``, on standardised features:
``C * sum of cross-entropies + |W|**2 / 2``, without a penalty on the bias. It is convex, so the
result depends on ``C`` only, not on a learning rate or the order of samples.

Letters: N samples, D width, K classes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from mimsuite.evaluate.metrics import accuracy

STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)  # values of C, strongest penalty first
_STEPS = 1000  # weak penalties need some hundreds
Loss = Callable[[Tensor, Tensor], Tensor]
_HISTORY = 10
_TOLERANCE = 1e-5  # largest gradient entry of the mean loss at convergence


@dataclass(frozen=True)
class Logistic:
    """A fitted classifier with its feature standardisation.

    Attributes:
        weight: (D, K); ``bias`` (K,).
        mean: (D,) of the training features; ``scale`` (D,) 1 / deviation, 0 for constant features.
    """

    weight: Tensor
    bias: Tensor
    mean: Tensor
    scale: Tensor

    def logits(self, features: Tensor) -> Tensor:
        """(N, D) raw features -> (N, K)."""
        return (features.float() - self.mean) * self.scale @ self.weight + self.bias


def fit(features: Tensor, labels: Tensor, classes: int, strength: float = 1.0) -> Logistic:
    """The minimum for one ``C`` = ``strength``; arguments as in :func:`fit_path`."""
    return fit_path(features, labels, classes, (strength,))[0]


def fit_labels(features: Tensor, labels: Tensor, strengths: Sequence[float]) -> list[Logistic]:
    """One logistic regression for each of K labels, which are (N, K) of 0 and 1.

    Other arguments as in :func:`fit_path`.
    """
    return fit_path(features, labels, labels.shape[1], strengths, _each_label)


def _each_label(logits: Tensor, labels: Tensor) -> Tensor:
    each = F.binary_cross_entropy_with_logits(logits, labels, reduction="none")
    return each.sum(dim=1).mean()


def fit_path(
    features: Tensor,
    labels: Tensor,
    classes: int,
    strengths: Sequence[float],
    loss: Loss = F.cross_entropy,
) -> list[Logistic]:
    """The minima for several ``C``, each started from the previous one (L-BFGS).

    Args:
        features: (N, D); standardised here by their mean and deviation.
        labels: (N,) int64 in ``range(classes)``.
        strengths: values of ``C``, ascending, so that each start is good.
        loss: mean loss over samples, from logits (N, K) and labels.
    """
    mean, scale = standardisation(features)
    rows = (features.float() - mean) * scale
    weight = rows.new_zeros(rows.shape[1], classes)
    bias = rows.new_zeros(classes)
    found = []
    with torch.inference_mode(False), torch.enable_grad():
        for strength in strengths:
            penalty = 1 / (2 * strength * len(rows))
            weight, bias = _minimum(rows, labels, weight, bias, penalty, loss)
            found.append(Logistic(weight, bias, mean, scale))
    return found


def choose_strength(
    features: Tensor, labels: Tensor, classes: int, parts: tuple[Tensor, Tensor]
) -> tuple[float, float]:
    """The best of :data:`STRENGTHS` on held-out samples, and its accuracy there; ties go to the
    stronger penalty.

    Args:
        parts: row numbers for fitting and for validation.
    """
    kept, held = parts
    fitted = fit_path(features[kept], labels[kept], classes, STRENGTHS)
    figures = {
        strength: accuracy(one.logits(features[held]).argmax(1), labels[held])
        for strength, one in zip(STRENGTHS, fitted, strict=True)
    }
    best = max(figures, key=figures.__getitem__)
    return best, figures[best]


def standardisation(features: Tensor) -> tuple[Tensor, Tensor]:
    """(D,) mean and (D,) 1 / deviation (0 for constant features) of features (N, D)."""
    mean, deviation = features.float().mean(0), features.float().std(0, correction=0)
    return mean, torch.where(deviation > 1e-6 * mean.abs() + 1e-12, 1 / deviation, 0.0)


def _minimum(
    rows: Tensor, labels: Tensor, weight: Tensor, bias: Tensor, penalty: float, loss: Loss
) -> tuple[Tensor, Tensor]:
    weight, bias = (value.clone().requires_grad_() for value in (weight, bias))
    solver = torch.optim.LBFGS(
        [weight, bias],
        max_iter=_STEPS,
        history_size=_HISTORY,
        tolerance_grad=_TOLERANCE,
        line_search_fn="strong_wolfe",
    )

    def objective() -> Tensor:
        solver.zero_grad()
        value = loss(rows @ weight + bias, labels) + penalty * weight.square().sum()
        value.backward()
        return value.detach()

    solver.step(objective)  # type: ignore[arg-type]
    return weight.detach(), bias.detach()
