"""Figures of a classification: accuracy, class-balanced accuracy, confusion.

Letters: N samples, K classes. All results are fractions from 0 to 1.
"""

from __future__ import annotations

import torch
from torch import Tensor


def accuracy(predicted: Tensor, labels: Tensor) -> float:
    """Fraction of (N,) predictions that equal their labels."""
    return float((predicted == labels).double().mean())


def balanced_accuracy(predicted: Tensor, labels: Tensor) -> float:
    """Mean over the classes that occur in ``labels`` of the fraction found, so that each class
    counts the same however many samples it has; a constant guess scores 1 / K."""
    table = confusion(predicted, labels, int(max(labels.max(), predicted.max())) + 1).double()
    present = table.sum(1) > 0
    return float((table.diagonal()[present] / table.sum(1)[present]).mean())


def confusion(predicted: Tensor, labels: Tensor, classes: int) -> Tensor:
    """(K, K) int64 counts; row = label, column = prediction."""
    cells = torch.bincount(labels * classes + predicted, minlength=classes * classes)
    return cells.view(classes, classes)


def scores(predicted: Tensor, labels: Tensor) -> dict[str, float]:
    """Both accuracies under the names that results carry."""
    return {
        "accuracy": accuracy(predicted, labels),
        "balanced_accuracy": balanced_accuracy(predicted, labels),
    }


def right_or_wrong(predicted: Tensor, labels: Tensor) -> str:
    """One character a sample, in order, ``1`` = right: what a comparison over seeds pairs up."""
    return "".join("1" if right else "0" for right in (predicted == labels).tolist())
