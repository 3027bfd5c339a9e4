"""Classification metrics: accuracy, class-balanced and top-5 accuracy, confusion.

Letters: N samples, K classes. All results are fractions from 0 to 1.
"""

from __future__ import annotations

import torch
from torch import Tensor

_TOP = 5
TOP5 = "top5_accuracy"  # its name in results


def accuracy(predicted: Tensor, labels: Tensor) -> float:
    """Fraction of (N,) predictions that equal their labels."""
    return float((predicted == labels).double().mean())


def balanced_accuracy(predicted: Tensor, labels: Tensor) -> float:
    """Mean recall over the classes in ``labels``: each class counts the same, however many samples
    it has; a constant guess scores 1 / K."""
    table = confusion(predicted, labels, int(max(labels.max(), predicted.max())) + 1).double()
    present = table.sum(1) > 0
    return float((table.diagonal()[present] / table.sum(1)[present]).mean())


def confusion(predicted: Tensor, labels: Tensor, classes: int) -> Tensor:
    """(K, K) int64 counts; rows are labels, columns are predictions."""
    cells = torch.bincount(labels * classes + predicted, minlength=classes * classes)
    return cells.view(classes, classes)


def scores(predicted: Tensor, labels: Tensor) -> dict[str, float]:
    """Both accuracies, under their names in results."""
    return {
        "accuracy": accuracy(predicted, labels),
        "balanced_accuracy": balanced_accuracy(predicted, labels),
    }


def has_top5(classes: int | None) -> bool:
    """Whether top-5 accuracy is meaningful: there are more than five classes."""
    return classes is not None and classes > _TOP


def ranks(table: Tensor, labels: Tensor) -> Tensor:
    """(N,) int64: how many classes rank above the true one, by falling score.

    Among equal scores the lower class id ranks first, so rank 0 means that ``argmax`` is right. A
    NaN score ranks best for another class and worst for the true one.

    Args:
        table: (N, K) scores.
        labels: (N,) int64; a label outside ``range(K)`` ranks below all K.
    """
    classes = table.shape[1]
    own = table.gather(1, labels.clamp(max=classes - 1)[:, None])  # (N, 1)
    before = torch.arange(classes, device=table.device) < labels[:, None]
    # The true class does not rank above itself, but with a NaN score it is counted too.
    ahead = (~(table <= own) | ((table == own) & before)).sum(1)
    return ahead.where(labels < classes, classes)


def top5_accuracy(ranks: Tensor) -> float:
    """Fraction of (N,) ranks below five."""
    return float(in_top5(ranks).double().mean())


def in_top5(ranks: Tensor) -> Tensor:
    """(N,) bool: whether each rank is below five."""
    return ranks < _TOP


def right_or_wrong(predicted: Tensor, labels: Tensor) -> str:
    """One character per sample, ``1`` = right, so that results of several seeds can be paired."""
    return "".join("1" if right else "0" for right in (predicted == labels).tolist())
