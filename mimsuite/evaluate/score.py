"""Scoring a trained classifier on a split, each sample once, without any choice left."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from mimsuite.data import views_of
from mimsuite.data.source import Source
from mimsuite.errors import DataError, Preempted, UserError
from mimsuite.evaluate.features import normalized_batches
from mimsuite.evaluate.metrics import confusion, scores
from mimsuite.methods import Method

if TYPE_CHECKING:
    from mimsuite.config import Resolved
    from mimsuite.train.preempt import StopFlag


def classify(
    method: Method, source: Source, resolved: Resolved, stop: StopFlag | None = None
) -> tuple[Tensor, Tensor]:
    """Predicted and true classes of all labelled samples, (N,) int64 each, on the CPU.

    Args:
        method: one with ``logits(images)``, or of what else the modality's main view is; on the
            device that shall compute.
        stop: set by a signal handler; looked at with every batch.

    Raises:
        Preempted: a stop signal came; whoever trained the method has saved it.
        UserError: the method has no classification head.
        DataError: no sample has a label.
    """
    logits_of = getattr(method, "logits", None)
    if logits_of is None:
        raise UserError(
            f"{resolved.recipe.method.name} has no classification head: fine-tune it first, or "
            f"probe it with mimsuite linear-probe"
        )
    views = views_of(resolved.recipe).test()
    predicted, labels = [], []
    was_training = method.training
    method.eval()
    try:
        with torch.inference_mode():
            device = next(method.parameters()).device
            for batch in normalized_batches(source, resolved, device, views=views):
                if stop:
                    raise Preempted(f"stopped by {stop.name} while scoring; training is saved")
                if batch.label is not None:
                    scores_of = merged(logits_of(batch.views[views.main]), views.rows)
                    label = batch.label[: len(scores_of)]
                    known = label >= 0
                    predicted.append(scores_of.argmax(1)[known].cpu())
                    labels.append(label[known].cpu())
    finally:
        method.train(was_training)
    if not sum(map(len, labels)):
        raise DataError(f"{source.name} has no labels in split '{source.split}'")
    return torch.cat(predicted), torch.cat(labels)


def merged(logits: Tensor, rows: int) -> Tensor:
    """Scores (B, K) of samples of which ``logits`` (rows * B, K) has several views, all first ones
    before all second: the mean of their softmax; the logits as they are where each has one."""
    if rows == 1:
        return logits
    return logits.float().softmax(1).unflatten(0, (rows, -1)).mean(0)


def report(predicted: Tensor, labels: Tensor, names: list[str] | None) -> dict[str, Any]:
    """Accuracies, and per class the samples and the fraction found; JSON-able."""
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
