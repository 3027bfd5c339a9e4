"""Part segmentation on a Point-MAE encoder (Pang et al., arXiv:2203.06604, section 4.2).

Group tokens of three depths are interpolated to the points, and each point is classified into the
parts of all object classes. The object's class is an input. Scoring considers only the parts of
that class.

Letters: B clouds, N points, G groups, D width, K parts.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import model_validator
from torch import Tensor

from mimsuite.batch import Batch
from mimsuite.config.keys.points import PointRecipe, PointTransformerSection
from mimsuite.config.keys.section import EmptySection, Fraction, Positive, Section
from mimsuite.config.keys.shared import MethodCard, MethodSection
from mimsuite.errors import DataError
from mimsuite.masking import TokenMask
from mimsuite.methods.base import Context, Method, Output, no_gather
from mimsuite.models import PartHead, PointTransformer
from mimsuite.noise import Noise
from mimsuite.weights.names import Names


class PointSegmentSection(MethodSection):
    """`method:` part segmentation has no keys of its own."""

    name: Literal["point-segment"]


class PartSegmenterSection(Section):
    """`model:` an encoder and a head that reads several of its blocks."""

    encoder: PointTransformerSection = PointTransformerSection()
    taps: tuple[Positive, ...] = (4, 8, 12)  # blocks whose tokens the head reads
    propagation: tuple[Positive, ...] = (1536, 1024)  # widths of the MLP after interpolation
    dropout: Fraction = 0.5

    @model_validator(mode="after")
    def _taps_are_there(self) -> PartSegmenterSection:
        if not self.taps or max(self.taps) > self.encoder.depth:
            raise ValueError(f"taps {list(self.taps)}: the encoder has {self.encoder.depth} blocks")
        return self


class PartTargetSection(Section):
    """`target:` the part of each point; parts are numbered across all object classes."""

    kind: Literal["parts"] = "parts"
    # Number of parts of each object class; ShapeNetPart: 4 2 2 4 4 3 3 2 4 2 6 2 3 3 3 3
    parts: tuple[Positive, ...]


class PointSegmentRecipe(PointRecipe):
    """A recipe for part segmentation."""

    card: ClassVar[MethodCard] = MethodCard("arXiv:2203.06604", "verified", ("step",))

    method: PointSegmentSection
    model: PartSegmenterSection
    mask: EmptySection = EmptySection()
    target: PartTargetSection


class PointSegmenter(Method):
    """An encoder of clouds with a head for parts."""

    Recipe = PointSegmentRecipe
    encoder: PointTransformer

    # Published checkpoints: segmentation/ of Point-MAE and Point-CMAE.
    names = Names(
        [
            *PointTransformer.published.pairs,
            ("head.", ""),
        ]
    )

    def __init__(self, recipe: PointSegmentRecipe) -> None:
        super().__init__(recipe)
        model, parts = recipe.model, recipe.target.parts
        self.taps, self.parts = model.taps, sum(parts)
        self.encoder = PointTransformer(model.encoder)
        self.head = PartHead(
            model.encoder.width * len(model.taps),
            model.propagation,
            objects=len(parts),
            parts=self.parts,
            dropout=model.dropout,
        )

    def check(self, batch: Batch) -> None:
        """Raise a ``DataError`` for objects without a class or points without a part."""
        label, parts = self._labels(batch)
        objects = self.head.objects
        wrong = ((label < 0) | (label >= objects)).nonzero().flatten().tolist()
        if wrong:
            raise DataError(f"sample {batch.keys[wrong[0]]}: its class is none of {objects}")
        wrong = ((parts < 0) | (parts >= self.parts)).any(1).nonzero().flatten().tolist()
        if wrong:
            raise DataError(f"sample {batch.keys[wrong[0]]}: a part is none of {self.parts}")

    def prepare(
        self, batch: Batch, noise: Noise, gather: Callable[[Tensor], Tensor] = no_gather
    ) -> Context:
        self._labels(batch)
        return Context(noise, gather)

    def forward(self, batch: Batch, masks: dict[str, TokenMask], ctx: Context) -> Output:
        """Mean negative log-likelihood over points; ``prediction`` (B, N, K) log-probabilities."""
        label, parts = self._labels(batch)
        found = self.log_probabilities(batch.views["points"], label, ctx.noise)
        loss = F.nll_loss(found.float().flatten(0, 1), parts.flatten())
        right = (found.detach().argmax(-1) == parts).float().mean()
        return Output(loss, {"nll": loss.detach(), "point_accuracy": right}, found, masks)

    def log_probabilities(
        self, points: Tensor, label: Tensor, noise: Noise | None = None
    ) -> Tensor:
        """(B, N, 3) clouds of (B,) object classes -> (B, N, K)."""
        groups = self.encoder.group(points)
        tokens = self.encoder.tokenizer(groups.points)
        layers = self.encoder(tokens, groups.center, noise=noise, layers=self.taps).layers
        features = torch.cat([self.encoder.norm(layers[tap]) for tap in self.taps], dim=-1)
        return self.head(points, groups.center, features, label, noise)

    def _labels(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """(B,) object classes and (B, N) parts."""
        if batch.label is None or "parts" not in batch.views:
            raise DataError(
                "part segmentation needs the class of each object and the part of each point: "
                "clouds with a fourth (or seventh) column, in one folder per class"
            )
        return batch.label, batch.views["parts"]
