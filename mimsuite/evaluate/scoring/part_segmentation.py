"""Part segmentation: mean intersection over union, as for ShapeNetPart.

Only the parts of an object's class compete. A part that neither the object nor the prediction has
counts as IoU 1.

Letters: S objects, N points, K parts of all classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from mimsuite.batch import Batch
from mimsuite.data.source import Source
from mimsuite.evaluate.scoring.scorer import Figure, Scorer
from mimsuite.methods import Method

if TYPE_CHECKING:
    from mimsuite.config import Resolved


def segment(method: Method, source: Source, resolved: Resolved) -> dict[str, Any]:
    """Score a trained part segmenter on every object of a source once.

    Returns:
        ``instance_miou`` (mean over objects), ``class_miou`` (mean over the classes' means),
        ``per_class``, ``point_accuracy``, ``n_test``; fractions from 0 to 1.

    Raises:
        UserError: the method does not segment.
        DataError: objects without a class or parts.
    """
    scorer = PartScorer(resolved)
    return scorer.report(scorer.collect(method, source), source)


class JudgedObject(NamedTuple):
    """One object: mean IoU, class, and number of right points."""

    iou: float
    label: int
    right: int
    points: int


class PartScorer(Scorer):
    """Parts of objects with a known class."""

    ability = "log_probabilities"
    labelled = True
    main = "instance_miou"
    figures = (
        Figure("instance_miou", "instance mIoU"),
        Figure("class_miou", "class mIoU"),
        Figure("point_accuracy", "points"),
    )

    def judge(self, method: Any, batch: Batch) -> list[JudgedObject]:
        label, parts = batch.label, batch.views["parts"]
        assert label is not None
        counts: Sequence[int] = self.recipe.target.parts
        found = own_parts(method.log_probabilities(batch.views["points"], label), label, counts)
        ious = shape_ious(found, parts, label, counts)
        right = (found == parts).sum(1)
        rows = zip(ious.tolist(), label.tolist(), right.tolist(), strict=True)
        return [JudgedObject(*row, points=parts.shape[1]) for row in rows]

    def measure(self, judged: Sequence[JudgedObject]) -> dict[str, float]:
        means = self._means(judged, None)
        return {figure.name: means[figure.name] for figure in self.figures}

    def report(self, judged: Sequence[JudgedObject], source: Source) -> dict[str, Any]:
        return self._means(judged, source.classes) | self.described()

    def _means(self, judged: Sequence[JudgedObject], names: list[str] | None) -> dict[str, Any]:
        ious, labels = (torch.tensor(column) for column in list(zip(*judged, strict=True))[:2])
        right, points = (sum(column) for column in list(zip(*judged, strict=True))[2:])
        return miou(ious, labels, names) | {"point_accuracy": right / points}


def own_parts(scores: Tensor, label: Tensor, counts: Sequence[int]) -> Tensor:
    """(S, N) best part of each point among the parts of its object's class.

    Args:
        scores: (S, N, K).
        label: (S,) classes.
        counts: number of parts of each class.
    """
    owner = torch.arange(len(counts), device=label.device).repeat_interleave(
        torch.tensor(counts, device=label.device)
    )  # (K,) class of each part
    foreign = owner != label[:, None]  # (S, K)
    return scores.masked_fill(foreign[:, None], -torch.inf).argmax(-1)


def shape_ious(found: Tensor, parts: Tensor, label: Tensor, counts: Sequence[int]) -> Tensor:
    """(S,) mean IoU over the parts of each object's class; ``found`` and ``parts`` are (S, N)."""
    ends = list(accumulate(counts))
    ious = []
    for mine, true, kind in zip(found, parts, label.tolist(), strict=True):
        own = torch.arange(ends[kind] - counts[kind], ends[kind], device=found.device)
        ours, theirs = mine == own[:, None], true == own[:, None]  # (parts, N)
        both, either = (ours & theirs).sum(1), (ours | theirs).sum(1)
        ious.append(torch.where(either > 0, both / either.clamp_min(1), 1.0).mean())
    return torch.stack(ious)


def miou(ious: Tensor, labels: Tensor, names: list[str] | None) -> dict[str, Any]:
    """Instance and class mean IoU, from (S,) values of objects of (S,) classes."""
    kinds = labels.unique().tolist()
    of_class = {
        (names[kind] if names and kind < len(names) else str(kind)): float(
            ious[labels == kind].double().mean()
        )
        for kind in kinds
    }
    return {
        "instance_miou": float(ious.double().mean()),
        "class_miou": sum(of_class.values()) / len(of_class),
        "per_class": of_class,
        "n_test": len(ious),
    }
