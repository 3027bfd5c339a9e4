"""Few labels per class: how much a frozen encoder saves in labelling.

With one label per class nothing is left to choose hyperparameters on, so both probes are fixed: the
nearest neighbour by cosine similarity, and softmax regression on standardised features with
``|W|**2 / 2`` added to the summed cross-entropy (scikit-learn's default, ``C = 1``), solved by
L-BFGS to its minimum.

Letters: N samples, D width, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from mimsuite.errors import DataError
from mimsuite.evaluate.knn import knn_predict
from mimsuite.evaluate.metrics import accuracy
from mimsuite.noise import keyed_rng


def low_shot(
    features: Tensor,
    labels: Tensor,
    shots: Sequence[int] = (1, 5, 20),
    draws: int = 10,
    seed: int = 0,
    *,
    test: tuple[Tensor, Tensor] | None = None,
) -> dict[str, dict[int, dict[str, Any]]]:
    """Accuracy from ``shots`` labelled samples of each class, over several keyed draws.

    A draw depends on (seed, draw, class) only, and the first samples of a larger shot are those of
    a smaller one: so encoders are compared on the same labels.

    Args:
        features: (N, D); labels (N,) int64 in ``range(K)``.
        test: (features, labels) to score on; ``None`` = the samples that were not drawn.

    Returns:
        ``linear`` and ``knn`` -> shots -> ``mean``, ``min``, ``max`` and the ``values`` of all
        draws. kNN asks one neighbour.

    Raises:
        DataError: a class with too few samples.
    """
    classes = int(labels.max()) + 1
    counts = torch.bincount(labels, minlength=classes)
    needed = max(shots) + (test is None)
    if int(counts.min()) < needed:
        raise DataError(
            f"class {int(counts.argmin())} has {int(counts.min())} samples; {max(shots)} shots "
            f"need {needed}"
        )
    values: dict[str, dict[int, list[float]]] = {
        kind: {shot: [] for shot in shots} for kind in ("linear", "knn")
    }
    for draw in range(draws):
        orders = [_order(labels, label, seed, draw) for label in range(classes)]
        for shot in shots:
            rows = torch.cat([order[:shot] for order in orders])
            x, y = features[rows].float(), labels[rows]
            queries, answers = test or _others(features, labels, rows)
            guess = knn_predict(x, y, queries, 1, classes)
            values["knn"][shot].append(accuracy(guess, answers))
            guess = _softmax_regression(x, y, classes, queries.float())
            values["linear"][shot].append(accuracy(guess, answers))
    return {
        kind: {shot: _summary(found) for shot, found in by_shot.items()}
        for kind, by_shot in values.items()
    }


def _order(labels: Tensor, label: int, seed: int, draw: int) -> Tensor:
    """The rows of a class in the order in which they are drawn."""
    rows = (labels == label).nonzero().squeeze(1)
    order = keyed_rng(seed, "low shot", draw, label).permutation(len(rows))
    return rows[torch.from_numpy(order)]


def _others(features: Tensor, labels: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
    rest = torch.ones(len(labels), dtype=torch.bool)
    rest[rows] = False
    return features[rest], labels[rest]


def _softmax_regression(x: Tensor, y: Tensor, classes: int, queries: Tensor) -> Tensor:
    """Predicted classes of the queries."""
    mean, deviation = x.mean(0), x.std(0, correction=0)
    scale = torch.where(deviation > 1e-6 * mean.abs() + 1e-12, 1 / deviation, 0.0)
    rows = (x - mean) * scale
    weight = torch.zeros(x.shape[1], classes, requires_grad=True)
    bias = torch.zeros(classes, requires_grad=True)
    solver = torch.optim.LBFGS([weight, bias], max_iter=200, line_search_fn="strong_wolfe")

    def objective() -> float:
        solver.zero_grad()
        entropy = torch.nn.functional.cross_entropy(rows @ weight + bias, y, reduction="sum")
        loss = entropy + weight.square().sum() / 2
        loss.backward()
        return float(loss.detach())

    with torch.enable_grad():
        solver.step(objective)
    return ((queries - mean) * scale @ weight.detach() + bias.detach()).argmax(1)


def _summary(values: list[float]) -> dict[str, Any]:
    return {
        "mean": sum(values) / len(values),
        "min": min(values),
        "max": max(values),
        "values": values,
    }
