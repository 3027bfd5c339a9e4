"""Score a trained classifier on a split: accuracies and confusion, in all and per class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from mimsuite.batch import Batch
from mimsuite.data.source import Source
from mimsuite.errors import UserError
from mimsuite.evaluate.baselines import majority_scores
from mimsuite.evaluate.bootstrap import balancing_weights, paired_interval
from mimsuite.evaluate.metrics import (
    TOP5,
    confusion,
    has_top5,
    in_top5,
    ranks,
    right_or_wrong,
    scores,
    top5_accuracy,
)
from mimsuite.evaluate.scoring.scorer import Figure, Scorer
from mimsuite.evaluate.sources import class_count
from mimsuite.methods import Method

if TYPE_CHECKING:
    from mimsuite.config import Resolved

_DIRECTION = "direction_accuracy"  # name in results


class Judged(NamedTuple):
    """Classification of a sample.

    Attributes:
        predicted, label: predicted and true class.
        rank: classes ranked above the true one; see :func:`~mimsuite.evaluate.metrics.ranks`.
        ahead: 1 if the true class scored above its opposite, else 0; -1: it has no opposite.
    """

    predicted: int
    label: int
    rank: int
    ahead: int = -1


def judged_by(
    table: Tensor, labels: Tensor, opposite: Mapping[int, int] = MappingProxyType({})
) -> list[Judged]:
    """Judge samples by their (N, K) scores and (N,) true classes."""
    columns = torch.stack([table.argmax(1), labels, ranks(table, labels)], dim=1)
    judged = [Judged(*row) for row in columns.tolist()]
    if not opposite:
        return judged
    return [
        one._replace(ahead=int(row[one.label] > row[opposite[one.label]]))
        if one.label in opposite
        else one
        for one, row in zip(judged, table.tolist(), strict=True)
    ]


def opposite_classes(source: Source, named: Sequence[tuple[str, str]]) -> dict[int, int]:
    """Class id -> id of its opposite class, from pairs of names."""
    found: dict[int, int] = {}
    classes = source.classes or []
    for pair in named:
        for name in pair:
            if name not in classes:
                raise UserError(f"eval.opposites: {source.name} has no class '{name}'")
        one, other = (classes.index(name) for name in pair)
        found |= {one: other, other: one}
    return found


def merged(logits: Tensor, rows: int) -> Tensor:
    """Scores (B, K) from ``logits`` (rows * B, K) of ``rows`` views per sample, view by view: the
    mean softmax over views, or the logits themselves for a single view."""
    if rows == 1:
        return logits
    return logits.float().softmax(1).unflatten(0, (rows, -1)).mean(0)


def report(predicted: Tensor, labels: Tensor, names: list[str] | None) -> dict[str, Any]:
    """Accuracies, and per class the number of samples and the recall; JSON-able."""
    table = confusion(predicted, labels, int(torch.stack([predicted, labels]).max()) + 1)
    classes = {
        (names[i] if names and i < len(names) else str(i)): {
            "samples": int(row.sum()),
            "accuracy": float(row[i] / row.sum()),
        }
        for i, row in enumerate(table)
        if row.sum()
    }
    return {
        **scores(predicted, labels),
        "n_test": len(labels),
        "per_class": classes,
        "confusion": table.tolist(),
    }


class ClassScorer(Scorer):
    """One class per sample; with more than five classes, top-5 accuracy too."""

    ability = "logits"
    labelled = True
    counted = "labels"
    figures: tuple[Figure, ...] = (
        Figure("accuracy", "accuracy"),
        Figure("balanced_accuracy", "balanced"),
    )
    main = "balanced_accuracy"

    def __init__(self, resolved: Resolved) -> None:
        super().__init__(resolved)
        self.top5 = has_top5(getattr(self.recipe.target, "classes", None))
        if self.top5:
            self.figures = (*self.figures, Figure(TOP5, "top-5"))
        self.opposites = bool(self.recipe.eval.opposites)
        self.opposite: dict[int, int] = {}
        if self.opposites:
            self.figures = (*self.figures, Figure(_DIRECTION, "direction"))

    def begin(self, source: Source) -> None:
        """Find the ids of opposite classes (``eval.opposites``)."""
        self.opposite = opposite_classes(source, self.recipe.eval.opposites)

    def check(self, method: Method, batch: Batch) -> None:
        """Accept samples without a label."""

    def judge(self, method: Any, batch: Batch) -> list[Judged]:
        if batch.label is None:
            return []
        table = merged(method.answers(batch), self.views.rows)
        label = batch.label[: len(table)]
        known = label >= 0
        return judged_by(table[known], label[known], self.opposite)

    def measure(self, judged: Sequence[Judged]) -> dict[str, float]:
        found = scores(*columns(judged))
        if self.top5:
            found[TOP5] = top5_accuracy(_ranks(judged))
        if len(ahead := _ahead(judged)):
            found[_DIRECTION] = float(ahead.double().mean())
        return found

    def keys_from_data(self, train: Source) -> dict[str, Any]:
        return {"target.classes": class_count(train)}

    def without_looking(self, train: Source, judged: Sequence[Judged]) -> tuple[str, list[Judged]]:
        _, labels = columns(judged)
        known = torch.from_numpy(train.labels())
        known = known[known >= 0]
        table = majority_scores(known, len(labels), self.recipe.target.classes)
        return "majority", judged_by(table, labels)

    def gains(self, ours: Sequence[Judged], theirs: Sequence[Judged]) -> dict[str, Any]:
        right = []
        for judged in (ours, theirs):
            predicted, labels = columns(judged)
            right.append(predicted == labels)
        weights = {"accuracy": None, "balanced_accuracy": balancing_weights(labels)}
        found = {
            name: paired_interval(*right, weights=weight).as_dict()
            for name, weight in weights.items()
        }
        if self.top5:
            near = (in_top5(_ranks(judged)) for judged in (ours, theirs))
            found[TOP5] = paired_interval(*near).as_dict()
        if self.opposites:
            ahead = (_ahead(judged) for judged in (ours, theirs))
            found[_DIRECTION] = paired_interval(*ahead).as_dict()
        return found

    def details(self, judged: Mapping[str, Sequence[Judged]]) -> dict[str, Any]:
        """Per method, whether each test sample is right; ``labels``; ``classes``; and for samples
        with an opposite class, in the same order, whether the right class scored higher."""
        pairs = {name: columns(one) for name, one in judged.items()}
        labels = next(iter(pairs.values()))[1]
        found = {
            "right": {name: right_or_wrong(*pair) for name, pair in pairs.items()},
            "labels": labels.tolist(),
            "classes": self.recipe.target.classes,
        }
        if self.opposites:
            yes = torch.tensor(1)
            found["ahead"] = {n: right_or_wrong(_ahead(one), yes) for n, one in judged.items()}
        return found

    def report(self, judged: Sequence[Judged], source: Source) -> dict[str, Any]:
        return self.measure(judged) | report(*columns(judged), source.classes)


def columns(judged: Sequence[Judged]) -> tuple[Tensor, Tensor]:
    """(N,) predicted and (N,) true classes."""
    predicted, labels, *_ = torch.tensor(judged, dtype=torch.int64).unbind(1)
    return predicted, labels


def _ranks(judged: Sequence[Judged]) -> Tensor:
    return torch.tensor([one.rank for one in judged])


def _ahead(judged: Sequence[Judged]) -> Tensor:
    """(M,) for samples whose class has an opposite: 1 if the true class scored higher."""
    return torch.tensor([one.ahead for one in judged if one.ahead >= 0])
