"""Probes of frozen features for regression and multilabel targets.

As in :mod:`mimsuite.evaluate.probes.probe`, features and penalty are chosen on validation samples
of the training split, and the test split is scored once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from torch import Tensor

from mimsuite.evaluate.probes import logistic, ridge
from mimsuite.evaluate.probes.knn import nearest_mean

if TYPE_CHECKING:
    from mimsuite.evaluate.probes.probe import ProbeData, Sets

_Predict = Callable[[Tensor], Tensor]  # (N, D) features -> (N, K)


class _Models(NamedTuple):
    """Models that differ in one hyperparameter.

    Attributes:
        key: name of the hyperparameter in results.
        tried: values to try; ties go to the first.
        fit: (features, targets, values) -> a predictor for each value.
    """

    key: str
    tried: Sequence[float]
    fit: Callable[[Tensor, Tensor, Sequence[float]], list[_Predict]]


def linear_targets(data: ProbeData) -> dict[str, Any]:
    """Ridge regression, or a logistic regression for each label.

    Returns:
        every figure of the scorer (``figures``) for each variant and for the constant prediction
        (``mean``, ``prior``); ``chosen``: ``features``, ``alpha`` or ``C``, and ``validation``, the
        main figure on validation samples; ``intervals`` of the gain over each; ``each``: the
        figures per target; and the facts about the data as in
        :func:`~mimsuite.evaluate.probes.probe.linear_probe`.
    """
    assert data.scorer is not None
    if data.scorer.names is None:
        words = "ridge regression of each target"
        models = _Models("alpha", ridge.PENALTIES, _ridges)
    else:
        words = "a logistic regression of each label with an L2 penalty"
        models = _Models("C", logistic.STRENGTHS, _logistics)
    return _result(
        data,
        models,
        f"linear: {words} on standardised features, at its minimum; layer, pooling and "
        f"{models.key}, the same for all,",
    )


def knn_targets(data: ProbeData, neighbours: int) -> dict[str, Any]:
    """Mean of the nearest training samples' targets. Returns as :func:`linear_targets`."""

    def fit(rows: Tensor, targets: Tensor, counts: Sequence[float]) -> list[_Predict]:
        return [lambda queries: nearest_mean(rows, targets, queries, neighbours)]

    words = f"knn: mean of the {neighbours} nearest training samples by cosine similarity"
    models = _Models("neighbours", (neighbours,), fit)
    return _result(data, models, f"{words}; layer and pooling")


def _ridges(rows: Tensor, targets: Tensor, alphas: Sequence[float]) -> list[_Predict]:
    return [one.predict for one in ridge.fit_path(rows, targets, alphas)]


def _logistics(rows: Tensor, targets: Tensor, strengths: Sequence[float]) -> list[_Predict]:
    def predict(one: logistic.Logistic) -> _Predict:
        return lambda queries: one.logits(queries).sigmoid()

    return [predict(one) for one in logistic.fit_labels(rows, targets, strengths)]


def _predict(
    data: ProbeData, train: Sets, test: Sets, models: _Models
) -> tuple[Tensor, dict[str, Any]]:
    """(predictions for the test samples, choice)."""
    kept, held = data.parts
    labels = data.train_labels
    best: dict[str, Any] = {}
    for name, table in train.items():
        for value, predict in zip(
            models.tried, models.fit(table[kept], labels[kept], models.tried), strict=True
        ):
            figure = _measure(data, predict(table[held]), labels[held])
            if not best or figure > best["validation"]:
                best = {"features": name, models.key: value, "validation": figure}
    name = best["features"]
    (fitted,) = models.fit(train[name], labels, (best[models.key],))
    return fitted(test[name]), best


def _measure(data: ProbeData, predicted: Tensor, truth: Tensor) -> float:
    assert data.scorer is not None
    found: float = data.scorer.figures_of(predicted.cpu().numpy(), truth.cpu().numpy())[
        data.scorer.main
    ]
    return found


def _result(data: ProbeData, models: _Models, words: str) -> dict[str, Any]:
    scorer = data.scorer
    assert scorer is not None
    truth = data.test_labels.cpu().numpy()
    judged: dict[str, np.ndarray] = {}
    chosen: dict[str, Any] = {}
    for variant, sets in data.train.items():
        table, chosen[variant] = _predict(data, sets, data.test[variant], models)
        judged[variant] = np.stack([table.cpu().numpy(), truth], axis=1)
    if "random_init" in judged:
        guess = scorer.constant(data.train_labels.cpu().numpy(), len(truth))
        judged[scorer.baseline] = np.stack([guess, truth], axis=1)
    measured = {name: scorer.measure(table) for name, table in judged.items()}
    variants = ("pretrained", "random_init", "raw_input", scorer.baseline)
    figures = {
        figure.name: {
            name: measured[name][figure.name] if name in measured else None for name in variants
        }
        for figure in scorer.figures
    }
    return figures | {
        **scorer.described(),
        "chosen": chosen,
        "intervals": {
            name: scorer.gains(judged["pretrained"], table)
            for name, table in judged.items()
            if name != "pretrained"
        },
        "targets": scorer.recipe.data.targets,
        "each": {name: scorer.each(table[:, 0], table[:, 1]) for name, table in judged.items()},
        "n_train": len(data.train_labels),
        "n_validation": len(data.parts[1]),
        "n_test": len(truth),
        "seed": data.seed,
        "protocol": f"{words} chosen on {len(data.parts[1])} validation samples of the training "
        "split, then fitted on all of it; the test split was scored once",
        "notes": data.notes,
    }
