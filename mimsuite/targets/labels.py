"""Supervised targets of a classifier's head: one class, numbers, or several labels per sample.

Letters: B batch, K outputs of the head (classes, numbers or labels).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from mimsuite.batch import Batch
from mimsuite.config.keys.labels import LabelRecipe
from mimsuite.errors import DataError, UserError
from mimsuite.targets.classes import soft_cross_entropy, soft_targets


class LabelLoss(NamedTuple):
    """A mean loss, scalars to log, and the denominator of the mean where it varies by batch."""

    loss: Tensor
    terms: dict[str, Tensor]
    weight: Tensor | None = None


class ClassLabels:
    """One class per sample, trained by cross-entropy; outputs are logits."""

    def __init__(self, recipe: LabelRecipe) -> None:
        if recipe.target.classes is None:
            raise UserError(
                "target.classes is not set and cannot be inferred without a labelled data source"
            )
        self.outputs: int = recipe.target.classes
        self.smoothing: float = recipe.target.label_smoothing

    def check(self, batch: Batch) -> None:
        """Raise a ``DataError`` for a sample without a valid label."""
        label = self.labels(batch)
        wrong = (label < 0) | (label >= self.outputs)
        if wrong.any():
            at = int(wrong.nonzero()[0])
            value = int(label[at])
            fault = f"has label {value}"
            if value < 0:
                fault = "has no label (data.per_class leaves such samples out)"
            raise DataError(f"sample {batch.keys[at]} {fault}; target.classes is {self.outputs}")

    def target(self, batch: Batch, training: bool) -> Tensor:
        """(B, K) float32 targets; a row of NaN where :meth:`check` would refuse the label."""
        return soft_targets(self.labels(batch), self.outputs, self.smoothing if training else 0.0)

    def loss(self, outputs: Tensor, target: Tensor, batch: Batch) -> LabelLoss:
        """Loss of (B, K) outputs. ``accuracy`` uses the own labels of samples, even if mixed."""
        loss = soft_cross_entropy(outputs, target)
        terms = {"cross_entropy": loss.detach()}
        if batch.label is not None:
            terms["accuracy"] = (outputs.detach().argmax(1) == batch.label).float().mean()
        return LabelLoss(loss, terms)

    def answer(self, outputs: Tensor) -> Tensor:
        """(B, K) outputs of the head as shown to users: logits, or numbers in their unit."""
        return outputs

    def in_units(self, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
        """Fold :meth:`answer` into a linear head of ``weight`` (K, D) and ``bias`` (K,)."""
        return weight, bias

    def labels(self, batch: Batch) -> Tensor:
        """Labels of the batch; raises a ``DataError`` where it has none."""
        if batch.label is None:
            raise DataError("classification needs labels: data.source has none")
        return batch.label


class NumberLabels(ClassLabels):
    """K numbers per sample (regression).

    The head predicts them standardised by the training split, so that the learning rate does not
    depend on their unit. Unknown numbers (NaN) carry no loss.
    """

    hint = ""

    def __init__(self, recipe: LabelRecipe) -> None:
        target = recipe.target
        if target.mean is None or target.std is None:
            raise UserError(
                "target.mean and target.std are not set and cannot be inferred without a labelled "
                "data source"
            )
        self.outputs, self.name = len(target.mean), target.loss
        self.mean, self.std = torch.tensor(target.mean), torch.tensor(target.std)

    def check(self, batch: Batch) -> None:
        label = self.labels(batch)
        if label.ndim != 2 or label.shape[1] != self.outputs:
            found = "classes" if label.ndim == 1 else f"{label.shape[1]} numbers or labels a sample"
            raise DataError(f"the data has {found}, the head has {self.outputs} outputs")
        empty = label.isnan().all(dim=1)
        if empty.any():
            key = batch.keys[int(empty.nonzero()[0])]
            raise DataError(f"sample {key} has no label: leave it out{self.hint}")

    def target(self, batch: Batch, training: bool) -> Tensor:
        label = self.labels(batch)
        return (label - self.mean.to(label.device)) / self.std.to(label.device)

    def loss(self, outputs: Tensor, target: Tensor, batch: Batch) -> LabelLoss:
        known = ~target.isnan()
        outputs, filled = outputs.float(), target.nan_to_num()
        error = F.mse_loss if self.name == "mse" else F.huber_loss
        count = known.sum()
        loss = (error(outputs, filled, reduction="none") * known).sum() / count.clamp(min=1)
        return LabelLoss(loss, {self.name: loss.detach()}, count)

    def answer(self, outputs: Tensor) -> Tensor:
        return outputs.float() * self.std.to(outputs.device) + self.mean.to(outputs.device)

    def in_units(self, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
        std, mean = self.std.to(weight.device), self.mean.to(weight.device)
        return weight * std[:, None], bias * std + mean


class SeveralLabels(NumberLabels):
    """Several of K labels per sample, each by binary cross-entropy; outputs are logits."""

    hint = ", or label it ; if it has none of the labels"

    def __init__(self, recipe: LabelRecipe) -> None:
        if recipe.target.names is None:
            raise UserError(
                "target.names is not set and cannot be inferred without a labelled data source"
            )
        self.outputs = len(recipe.target.names)

    def target(self, batch: Batch, training: bool) -> Tensor:
        return self.labels(batch)

    def loss(self, outputs: Tensor, target: Tensor, batch: Batch) -> LabelLoss:
        loss = F.binary_cross_entropy_with_logits(outputs.float(), target.float())
        return LabelLoss(loss, {"binary_cross_entropy": loss.detach()})

    def answer(self, outputs: Tensor) -> Tensor:
        return outputs

    def in_units(self, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
        return weight, bias


_KINDS = {"classes": ClassLabels, "regression": NumberLabels, "multilabel": SeveralLabels}


def labels_of(recipe: LabelRecipe) -> ClassLabels:
    """The labels of kind ``data.targets``.

    Raises:
        UserError: the recipe lacks a key that only labelled data can supply.
    """
    return _KINDS[recipe.data.targets](recipe)
