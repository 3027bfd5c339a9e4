"""Classification of point clouds on a Point-MAE encoder (Pang et al., arXiv:2203.06604, section 4;
the frozen protocols are those of Point-CMAE, arXiv:2407.05862).

The head reads the concatenation of the class token and the maximum over group tokens. Pretraining
has no class token, so the token and its position start fresh.

Letters: B clouds, N points, D width, K classes.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Annotated, ClassVar, Literal, cast

import torch
from pydantic import Field, model_validator
from torch import Tensor

from mimsuite.batch import Batch
from mimsuite.config.keys.labels import LabelRecipe, LabelTargetSection
from mimsuite.config.keys.points import PointRecipe, PointTransformerSection
from mimsuite.config.keys.section import EmptySection, FirstBlocks, Fraction, Section
from mimsuite.config.keys.shared import GroupSection, MethodCard, MethodSection
from mimsuite.masking import TokenMask
from mimsuite.methods.base import Context, Method, Output, no_gather
from mimsuite.models import ClassToken, Features, PointHead, PointTransformer
from mimsuite.noise import Noise
from mimsuite.targets import labels_of
from mimsuite.weights.names import Names

_READOUT = ("cls.", "head.")  # parameters that pretraining does not have


class PointClassifySection(MethodSection):
    """`method:` training of head, class token and its position (PCP-MAE: 10 and true)."""

    name: Literal["point-classify"]
    head_rate: Annotated[float, Field(gt=0.0)] = 1.0  # their peak rate, relative to the rest
    decay_head: bool = False  # decay all of them, including biases, norms and the class token


class PointClassifierSection(Section):
    """`model:` an encoder, and a head on its class token and maximum."""

    encoder: PointTransformerSection = PointTransformerSection()
    head: Literal["mlp3", "linear"] = "mlp3"  # mlp3: three layers with batch norm
    dropout: Fraction = 0.5  # after the first two layers of mlp3
    # all or true: train only the head, the class token and its position. The rest stays in train
    # mode, as published: batch norms adapt, drop path is on. With strict_freeze only the head is
    # trained. A number: freeze the embeddings and this many first blocks.
    freeze: Literal["all"] | bool | FirstBlocks = False
    strict_freeze: bool = False

    @model_validator(mode="after")
    def _fits(self) -> PointClassifierSection:
        if self.strict_freeze and not (self.freeze == "all" or self.freeze is True):
            raise ValueError("strict_freeze needs freeze=all: set it too")
        return self


class PointClassifyRecipe(PointRecipe, LabelRecipe):
    """A recipe for fine-tuning, or for training a head on a frozen encoder."""

    card: ClassVar[MethodCard] = MethodCard("arXiv:2203.06604", "verified", ("step",))

    method: PointClassifySection
    model: PointClassifierSection
    mask: EmptySection = EmptySection()
    target: LabelTargetSection


class PointClassifier(Method):
    """An encoder of clouds with a classification head."""

    Recipe = PointClassifyRecipe
    encoder: PointTransformer

    names = Names(
        [
            *PointTransformer.published.pairs,
            ("cls.cls_token", "cls_token"),
            ("cls.cls_pos", "cls_pos"),
            ("head.layers.", "cls_head_finetune."),
        ]
    )

    def __init__(self, recipe: PointClassifyRecipe) -> None:
        super().__init__(recipe)
        model = recipe.model
        self.learnt = labels_of(recipe)
        self.classes = self.learnt.outputs
        self.strict = model.strict_freeze
        width = model.encoder.width
        self.encoder = PointTransformer(model.encoder)
        self.cls = ClassToken(width)
        self.head = PointHead(2 * width, self.classes, model.head, model.dropout)
        if model.freeze == "all" or model.freeze is True:
            self.encoder.requires_grad_(False)
        if self.strict:
            self.cls.requires_grad_(False)
            self.train()

    def train(self, mode: bool = True) -> PointClassifier:
        """Set the mode; a strictly frozen encoder stays in eval mode."""
        super().train(mode)
        if self.strict:
            self.encoder.eval()
        return self

    def check(self, batch: Batch) -> None:
        """Raise a ``DataError`` for a sample without a label, or one beyond ``target.classes``."""
        self.learnt.check(batch)

    def prepare(
        self, batch: Batch, noise: Noise, gather: Callable[[Tensor], Tensor] = no_gather
    ) -> Context:
        """Soft targets; a label that :meth:`check` would refuse makes the loss NaN."""
        return Context(noise, gather, {"target": self.learnt.target(batch, self.training)})

    def forward(self, batch: Batch, masks: dict[str, TokenMask], ctx: Context) -> Output:
        """Loss of the labels, for classes the cross-entropy; ``prediction`` is (B, K)."""
        outputs = self.outputs(batch, ctx.noise)
        loss, terms, weight = self.learnt.loss(outputs, ctx.prepared["target"], batch)
        return Output(loss, terms, self.learnt.answer(outputs), masks, weight)

    def answers(self, batch: Batch, noise: Noise | None = None) -> Tensor:
        """(B, K) for the samples of a batch: logits, or predicted numbers with
        ``data.targets=regression``."""
        return self.learnt.answer(self.outputs(batch, noise))

    def logits(self, points: Tensor, noise: Noise | None = None) -> Tensor:
        """(B, N, 3) -> (B, K), as :meth:`answers`."""
        return self.answers(Batch.of_views({"points": points}), noise)

    def outputs(self, batch: Batch, noise: Noise | None = None) -> Tensor:
        """(B, K) outputs of the head."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.strict):
            features = self.encoder.encode(batch, noise=noise, cls=self.cls).pool("cls_max")
        return self.head(features, noise)

    def encode(self, batch: Batch, layers: Collection[int] = ()) -> Features:
        return self.encoder.encode(batch, layers=layers, cls=self.cls)

    # --- for the optimizer ---

    def layer_id(self, name: str) -> int:
        """The class token has the embeddings' layer id, as in image classifiers."""
        return 0 if name.startswith("cls.") else super().layer_id(name)

    def no_weight_decay(self) -> set[str]:
        return {"cls.cls_token"}

    def parameter_groups(self) -> dict[str, GroupSection]:
        """One group: the class token with its position, and the head."""
        method, peak = cast(PointClassifySection, self.recipe.method), self.recipe.lr
        own = GroupSection(lr=peak * method.head_rate, decay_all=method.decay_head)
        return {} if own == GroupSection(lr=peak) else dict.fromkeys(_READOUT, own)

    # --- published checkpoints (PointTransformer of Point-MAE and Point-CMAE) ---

    def export_reference(self) -> dict[str, Tensor]:
        if self.recipe.data.targets == "regression":
            raise NotImplementedError("no published layout has a regression head")
        return super().export_reference()
