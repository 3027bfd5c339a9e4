"""Score regression and multilabel methods (``data.targets``)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from mimsuite.batch import Batch
from mimsuite.console import warn
from mimsuite.data.source import Source
from mimsuite.errors import DataError
from mimsuite.evaluate.scoring.scorer import Figure, Scorer, paired_figures
from mimsuite.evaluate.scoring.target_metrics import (
    average_precisions,
    f1_scores,
    multilabel_figures,
    regression_columns,
    regression_figures,
)
from mimsuite.methods import Method

if TYPE_CHECKING:
    from mimsuite.config import Resolved


class TargetScorer(Scorer):
    """Base of both. The judgement of a sample is (2, K) float32: prediction and truth.

    Attributes:
        baseline: name of the constant prediction in results.
        names: names of the K labels; None for regression.
    """

    ability = "logits"
    counted = "labels"
    baseline: ClassVar[str]

    def __init__(self, resolved: Resolved) -> None:
        super().__init__(resolved)
        self.names: Sequence[str] | None = getattr(self.recipe.target, "names", None)

    def begin(self, source: Source) -> None:
        """Raise a ``DataError`` if the labels differ from those of training."""
        fit_to(source, self.names, len(self.recipe.target.mean or ()))

    def check(self, method: Method, batch: Batch) -> None:
        """Accept samples without a target."""

    def judge(self, method: Any, batch: Batch) -> list[Any]:
        assert batch.label is not None
        answers = self.probability(method.answers(batch).float())
        answers = answers.unflatten(0, (self.views.rows, -1)).mean(0)  # over the views of a sample
        truth = batch.label[: len(answers)]
        judged = torch.stack([answers, truth], dim=1).cpu().numpy()
        return [one for one in judged if not np.isnan(one[1]).all()]

    def probability(self, answers: Tensor) -> Tensor:
        """The values to score, from a method's outputs."""
        return answers

    def measure(self, judged: Sequence[Any] | np.ndarray) -> dict[str, float]:
        table = np.asarray(judged)
        return self.figures_of(table[:, 0], table[:, 1])

    def figures_of(self, predicted: np.ndarray, truth: np.ndarray) -> dict[str, float]:
        """Figures from (N, K) predictions and truth."""
        raise NotImplementedError

    def each(self, predicted: np.ndarray, truth: np.ndarray) -> list[dict[str, Any]]:
        """Figures of each of the K columns."""
        raise NotImplementedError

    def constant(self, train: np.ndarray, samples: int) -> np.ndarray:
        """(samples, K): the mean of the (N, K) training targets, in every row."""
        return np.broadcast_to(np.nanmean(train, axis=0), (samples, train.shape[1]))

    def without_looking(self, train: Source, judged: Sequence[Any]) -> tuple[str, list[Any]]:
        assert train.targets is not None
        truth = np.asarray(judged)[:, 1]
        guess = self.constant(train.targets.values, len(truth))
        return self.baseline, list(np.stack([guess, truth], axis=1))

    def gains(
        self, ours: Sequence[Any] | np.ndarray, theirs: Sequence[Any] | np.ndarray
    ) -> dict[str, Any]:
        found = paired_figures(self.measure, np.asarray(ours), np.asarray(theirs))
        return {name: interval.as_dict() for name, interval in found.items()}

    def details(self, judged: Mapping[str, Sequence[Any]]) -> dict[str, Any]:
        """``each``: the figures per target, for every method."""
        tables = {name: np.asarray(one) for name, one in judged.items()}
        return {
            "targets": self.recipe.data.targets,
            "each": {name: self.each(table[:, 0], table[:, 1]) for name, table in tables.items()},
        }

    def report(self, judged: Sequence[Any], source: Source) -> dict[str, Any]:
        table = np.asarray(judged)
        found = {"targets": self.recipe.data.targets, "each": self.each(table[:, 0], table[:, 1])}
        return super().report(judged, source) | found


class RegressionScorer(TargetScorer):
    """Regression. The main figure is R2, because higher is better."""

    figures = (
        Figure("mae", "MAE", ""),
        Figure("rmse", "RMSE", ""),
        Figure("r2", "R2", ""),
        Figure("spearman", "Spearman", ""),
    )
    main = "r2"
    baseline = "mean"

    def keys_from_data(self, train: Source) -> dict[str, Any]:
        """Mean and deviation of the training split's targets."""
        assert train.targets is not None
        values = train.targets.values.astype(np.float64)
        if not np.isfinite(values).any(axis=0).all():
            raise DataError(f"{train.name}: one of the targets is not known for any sample")
        std = np.nanstd(values, axis=0)
        if not std.any():
            raise DataError(f"{train.name}: all labels are the same number: nothing to tell apart")
        # A constant target is not scaled.
        std = np.where(std > 0, std, 1.0)
        return {"target.mean": np.nanmean(values, axis=0).tolist(), "target.std": std.tolist()}

    def figures_of(self, predicted: np.ndarray, truth: np.ndarray) -> dict[str, float]:
        return regression_figures(predicted, truth)

    def each(self, predicted: np.ndarray, truth: np.ndarray) -> list[dict[str, Any]]:
        tables = [
            regression_columns(predicted[:, [column]], truth[:, [column]])
            for column in range(truth.shape[1])
        ]
        return [
            {name: values[0] if values else None for name, values in table.items()}
            for table in tables
        ]

    def details(self, judged: Mapping[str, Sequence[Any]]) -> dict[str, Any]:
        """As the base, with the target statistics that the head was trained with."""
        target = self.recipe.target
        return super().details(judged) | {"mean": target.mean, "std": target.std}


class MultilabelScorer(TargetScorer):
    """Several labels per sample. The main figure is mAP."""

    figures = (Figure("map", "mAP"), Figure("f1_micro", "micro F1"), Figure("f1_macro", "macro F1"))
    main = "map"
    baseline = "prior"

    def keys_from_data(self, train: Source) -> dict[str, Any]:
        assert train.targets is not None
        return {"target.names": train.targets.names}

    def probability(self, answers: Tensor) -> Tensor:
        return answers.sigmoid()

    def figures_of(self, predicted: np.ndarray, truth: np.ndarray) -> dict[str, float]:
        return multilabel_figures(predicted, truth)

    def each(self, predicted: np.ndarray, truth: np.ndarray) -> list[dict[str, Any]]:
        precisions, (f1, _) = average_precisions(predicted, truth), f1_scores(predicted, truth)
        names = self.names or [str(number) for number in range(len(f1))]
        return [
            {
                "label": name,
                "samples": int(count),
                "average_precision": None if np.isnan(precision) else float(precision),
                "f1": float(score),
            }
            for name, count, precision, score in zip(
                names, truth.sum(0), precisions, f1, strict=True
            )
        ]


def fit_to(source: Source, names: Sequence[str] | None, width: int) -> None:
    """Reorder a source's target columns to those of training; labels unknown to training are left
    out and named.

    Raises:
        DataError: no targets, or a different number of them.
    """
    if source.targets is None:
        raise DataError(f"{source.name} has no targets: its parts differ in labels or numbers")
    source.targets, strange = source.targets.under(names, width, source.name)
    if strange:
        warn(f"{source.name} '{source.split}': {strange} labels that training does not know")
