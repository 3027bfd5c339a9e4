"""Part segmentation: mean intersection over union, as for ShapeNetPart.

Only parts of an object's own class compete. A part that neither the object nor the prediction has
counts as found.

Letters: S objects, N points, K parts of all classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from mimsuite.data import views_of
from mimsuite.data.source import Source
from mimsuite.errors import DataError, UserError
from mimsuite.evaluate.features import normalized_batches
from mimsuite.methods import Method

if TYPE_CHECKING:
    from mimsuite.config import Resolved


def segment(method: Method, source: Source, resolved: Resolved) -> dict[str, Any]:
    """Score a trained part segmenter on every object of a source once.

    Returns:
        ``instance_miou`` (mean over objects), ``class_miou`` (mean over the classes' means),
        ``per_class``, ``point_accuracy``, ``n_test``; fractions from 0 to 1.

    Raises:
        UserError: a method that does not segment.
        DataError: objects without class or parts.
    """
    segmented: Any = getattr(method, "log_probabilities", None)
    if segmented is None:
        raise UserError(f"{resolved.recipe.method.name} tells no parts: train a point-segment one")
    counts: Sequence[int] = resolved.recipe.target.parts
    ious, labels, right, points = [], [], 0, 0
    was_training = method.training
    method.eval()
    try:
        with torch.inference_mode():
            device = next(method.parameters()).device
            views = views_of(resolved.recipe)
            for batch in normalized_batches(source, resolved, device, views=views):
                method.check(batch)
                label, parts = batch.label, batch.views["parts"]
                assert label is not None
                found = own_parts(segmented(batch.views["points"], label), label, counts)
                ious.append(shape_ious(found, parts, label, counts).cpu())
                labels.append(label.cpu())
                right += int((found == parts).sum())
                points += parts.numel()
    finally:
        method.train(was_training)
    if not labels:
        raise DataError(f"{source.name} has no sample in split '{source.split}'")
    return miou(torch.cat(ious), torch.cat(labels), source.classes) | {
        "point_accuracy": right / points
    }


def own_parts(scores: Tensor, label: Tensor, counts: Sequence[int]) -> Tensor:
    """(S, N) the best part of each point among those of its object's class.

    Args:
        scores: (S, N, K).
        label: (S,) classes.
        counts: parts of each class.
    """
    owner = torch.arange(len(counts), device=label.device).repeat_interleave(
        torch.tensor(counts, device=label.device)
    )  # (K,) the class that a part belongs to
    foreign = owner != label[:, None]  # (S, K)
    return scores.masked_fill(foreign[:, None], -torch.inf).argmax(-1)


def shape_ious(found: Tensor, parts: Tensor, label: Tensor, counts: Sequence[int]) -> Tensor:
    """(S,) mean over the parts of each object's class; ``found`` and ``parts`` are (S, N)."""
    ends = list(accumulate(counts))
    ious = []
    for mine, true, kind in zip(found, parts, label.tolist(), strict=True):
        own = torch.arange(ends[kind] - counts[kind], ends[kind], device=found.device)
        ours, theirs = mine == own[:, None], true == own[:, None]  # (parts, N)
        both, either = (ours & theirs).sum(1), (ours | theirs).sum(1)
        ious.append(torch.where(either > 0, both / either.clamp_min(1), 1.0).mean())
    return torch.stack(ious)


def miou(ious: Tensor, labels: Tensor, names: list[str] | None) -> dict[str, Any]:
    """Both means of (S,) values of objects of (S,) classes."""
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
