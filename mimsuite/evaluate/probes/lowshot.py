"""Probes with few labels per class: how much labelling a frozen encoder saves.

With one label per class no samples are left to choose hyperparameters on, so both probes are fixed
for all amounts: nearest neighbours by cosine similarity, and softmax regression on standardised
features with scikit-learn's default penalty, ``C = 1`` (:mod:`.logistic`). Layer and pooling are
fixed too. :mod:`mimsuite.data.sources.few` draws the labelled samples, so fine-tuning with
``data.per_class`` sees the same ones.

Letters: N test samples, R draws.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from mimsuite import config
from mimsuite.data.sources.few import Amount, draw, text_of, wanted
from mimsuite.errors import DataError
from mimsuite.evaluate.baselines import VARIANTS
from mimsuite.evaluate.bootstrap import balancing_weights, paired_interval
from mimsuite.evaluate.probes import logistic
from mimsuite.evaluate.probes.knn import knn_predict
from mimsuite.evaluate.probes.probe import ProbeData

if TYPE_CHECKING:
    from mimsuite.config import Resolved

AMOUNTS: tuple[Amount, ...] = (1, 5, 20, 0.01, 0.1)
DRAWS = 5
_STRENGTH = 1.0

Right = dict[str, Tensor]  # variant -> (R, N) bool: whether a draw's probe is right on a sample


def one_table(resolved: Resolved, depth: int) -> Resolved:
    """The recipe with one layer and one pooling: the last layer and the mean of the tokens, unless
    it names others. Labels are too few to hold some out for the choice."""
    section = resolved.recipe.eval
    changes: dict[str, Any] = {}
    if section.layers is None or len(section.layers) > 1:
        changes["eval.layers"] = [depth]
    if section.pool == "auto":
        changes["eval.pool"] = "mean"
    return config.with_overrides(resolved, changes, "low-shot") if changes else resolved


def low_shot(
    data: ProbeData,
    amounts: Sequence[Amount] = AMOUNTS,
    *,
    seed: int = 0,
    draws: int = DRAWS,
    neighbours: int = 5,
) -> dict[str, Any]:
    """Accuracy of frozen features from few labels, over several keyed draws.

    Args:
        data: one feature table for each variant; see :func:`one_table`.
        amounts: labels per class, or shares of each class. Amounts that exceed the smallest class
            are left out with a note.
        seed: 0: the lists that ship with the suite; see :func:`draw_numbers`.
        neighbours: number of voting neighbours; with fewer labels, all vote.

    Returns:
        ``linear`` and ``knn`` -> amount -> :func:`summary`; ``amounts`` -> amount ->
        ``samples``, ``per_class`` (fewest and most); ``draws``, ``features``, ``n_train``,
        ``n_test``, ``classes``, ``seed``, ``protocol``, ``notes``.

    Raises:
        DataError: every amount exceeds the smallest class.
        ValueError: several tables for a variant.
    """
    tables = {
        name: (only(data.train[name]), only(data.test[name]))
        for name in VARIANTS
        if name in data.train
    }
    notes = list(data.notes)
    kept = possible(data.train_labels, amounts, notes)
    numbers = draw_numbers(seed, draws)
    found: dict[str, dict[str, Any]] = {"linear": {}, "knn": {}}
    for amount in kept:
        right: dict[str, dict[str, list[Tensor]]] = {kind: {} for kind in found}
        for number in numbers:
            rows = torch.from_numpy(draw(data.train_labels.numpy(), amount, number))
            labels = data.train_labels[rows]
            for name, (train, test) in tables.items():
                x = train[rows]
                fitted = logistic.fit(x, labels, data.classes, _STRENGTH)
                guesses = {
                    "linear": fitted.logits(test).argmax(1),
                    "knn": knn_predict(x, labels, test, neighbours, data.classes),
                }
                for kind, guess in guesses.items():
                    right[kind].setdefault(name, []).append(guess == data.test_labels)
        for kind, by_variant in right.items():
            stacked = {name: torch.stack(list_) for name, list_ in by_variant.items()}
            found[kind][text_of(amount)] = summary(stacked, data.test_labels)
    return found | {
        "amounts": sizes(data.train_labels, kept),
        "draws": list(numbers),
        "features": {name: next(iter(sets)) for name, sets in data.train.items()},
        "n_train": len(data.train_labels),
        "n_test": len(data.test_labels),
        "classes": data.classes,
        "seed": seed,
        "protocol": {
            "linear": "softmax regression on standardised features, L2 penalty with C = 1, at its "
            "minimum; no hyperparameter was chosen on labels",
            "knn": f"majority of the {neighbours} nearest labelled samples by cosine similarity, "
            f"ties to the class of the most similar one",
        },
        "notes": notes,
    }


def draw_numbers(seed: int, draws: int) -> range:
    """Draw numbers of a seed: 0 to 4 for seed 0 (shipped with the suite), 5 to 9 for seed 1 ..."""
    return range(seed * draws, (seed + 1) * draws)


def possible(labels: Tensor, amounts: Sequence[Amount], notes: list[str]) -> list[Amount]:
    """The amounts that every class is large enough for; the others are added to ``notes``.

    Raises:
        DataError: no amount is possible.
    """
    counts = torch.bincount(labels)
    fewest = int(counts[counts > 0].min())
    kept = []
    for amount in amounts:
        if wanted(amount, fewest) <= fewest:
            kept.append(amount)
        else:
            notes.append(f"{amount} labels per class left out: a class has {fewest} samples")
    if not kept:
        raise DataError(f"a class has {fewest} samples: too few for any requested amount")
    return kept


def sizes(labels: Tensor, amounts: Sequence[Amount]) -> dict[str, dict[str, Any]]:
    """Labelled samples per amount: in all, and in the smallest and the largest class."""
    counts = torch.bincount(labels)
    found = {}
    for amount in amounts:
        each = [wanted(amount, count) for count in counts[counts > 0].tolist()]
        found[text_of(amount)] = {"samples": sum(each), "per_class": [min(each), max(each)]}
    return found


def summary(right: Right, labels: Tensor) -> dict[str, Any]:
    """``accuracy`` and ``balanced_accuracy`` -> variant -> ``mean``, ``min``, ``max``, ``values``
    over the draws; ``intervals`` -> other variant -> figure -> the gain of ``pretrained`` with its
    95 % interval over draws and test samples."""
    weights = {"accuracy": None, "balanced_accuracy": balancing_weights(labels)}
    ours = right["pretrained"]
    result: dict[str, Any] = {
        figure: {name: _spread(_means(one, weight)) for name, one in right.items()}
        for figure, weight in weights.items()
    }
    intervals = {
        name: {
            figure: paired_interval(ours, theirs, weights=weight).as_dict()
            for figure, weight in weights.items()
        }
        for name, theirs in right.items()
        if name != "pretrained"
    }
    return result | {"intervals": intervals}


def _means(right: Tensor, weight: Tensor | None) -> list[float]:
    """Weighted mean of each row of ``right`` (R, N)."""
    found: list[float]
    found = (right.double().mean(1) if weight is None else right.double() @ weight).tolist()
    return found


def _spread(values: list[float]) -> dict[str, Any]:
    return {
        "mean": sum(values) / len(values),
        "min": min(values),
        "max": max(values),
        "values": values,
    }


def only(sets: dict[str, Tensor]) -> Tensor:
    """The only feature table of a variant."""
    if len(sets) != 1:
        raise ValueError(f"one feature table, not {sorted(sets)}")
    return next(iter(sets.values()))
