"""Supervised classification of clips: fine-tuning of VideoMAE's encoder (arXiv:2303.16727).

The tokens are averaged and normalised by a fresh ``fc_norm``; the encoder's own last norm is
dropped, positions stay fixed. Mixup and cutmix treat a clip as one image whose channels are those
of all frames. Everything else is as in :mod:`mimsuite.methods.classify`, including the attentive
probe of a frozen encoder (``pool: attentive``).
"""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor

from mimsuite.batch import Batch
from mimsuite.config.keys.section import Fraction, PathText
from mimsuite.config.keys.shared import MethodCard, MethodSection
from mimsuite.config.keys.video import (
    AnyClipEncoderSection,
    ClipDataSection,
    LabelledClipAugmentSection,
    VideoViTSection,
)
from mimsuite.methods.classify import Classifier, ClassifierSection, ClassifyRecipe
from mimsuite.models import ClipEncoder, Features, VideoViT, head_rows
from mimsuite.noise import Noise


class VideoClassifySection(MethodSection):
    """`method:` classification has no keys of its own."""

    name: Literal["classify-video"]


class VideoClassifierSection(ClassifierSection):
    """`model:` an encoder of tubelets and a linear head."""

    encoder: AnyClipEncoderSection = VideoViTSection()  # type: ignore[assignment]
    # Input of the head. mean: mean token, then a fresh norm; attentive: pooling by a trained query
    pool: Literal["mean", "attentive"] = "mean"  # type: ignore[assignment]
    head_dropout: Fraction = 0.0  # dropout on the input of the head
    # JSON file, a list: for each class its row in the head of the --init-from weights, or null for
    # a fresh row. null: take that head if it has the same number of classes.
    head_rows: PathText | None = None


class VideoClassifyRecipe(ClassifyRecipe):
    """A recipe for fine-tuning on clips."""

    card: ClassVar[MethodCard] = MethodCard("arXiv:2303.16727", "verified", ("step",))

    method: VideoClassifySection  # type: ignore[assignment]
    model: VideoClassifierSection
    data: ClipDataSection = ClipDataSection()
    augment: LabelledClipAugmentSection = LabelledClipAugmentSection()


class VideoClassifier(Classifier):
    """A tubelet encoder with a classification head."""

    Recipe = VideoClassifyRecipe  # type: ignore[assignment]
    view = "clip"
    encoder: ClipEncoder

    def __init__(self, recipe: VideoClassifyRecipe) -> None:
        super().__init__(recipe)
        self.head_dropout = recipe.model.head_dropout
        self.joined_clips = recipe.augment.joined_clips

    def outputs(self, batch: Batch, noise: Noise | None = None) -> Tensor:
        """(B, K) outputs of the head, of normalised clips (B, C, T, H, W)."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            features = self._features(batch.views[self.view], noise)
        pooled = self.pooled(features)
        if self.training and self.head_dropout:
            assert noise is not None
            kept = noise.rows("head_dropout", pooled.shape[1]) >= self.head_dropout
            pooled = pooled * kept / (1 - self.head_dropout)
        return self.head(pooled)

    def _features(self, images: Tensor, noise: Noise | None) -> Features:
        """Features of the clips of each view, encoded apart and joined."""
        parts = [  # (B, C, J T, H, W) -> J of (B, C, T, H, W)
            self.encoder.encode(Batch.of_views({self.view: part}), noise=noise)
            for part in images.chunk(self.joined_clips, dim=2)
        ]
        if len(parts) == 1:
            return parts[0]
        return Features(
            torch.cat([part.cls for part in parts], dim=1),
            torch.cat([part.tokens for part in parts], dim=1),
            pools=parts[0].pools,
        )

    def adapt_state(self, state: dict[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
        """Add a released head, and take rows of another head as ``model.head_rows`` says."""
        state, lines = super().adapt_state(state)
        path = self.recipe.model.head_rows
        if path is None:
            return state, lines
        own = {f"head.{name}": tensor for name, tensor in self.head.named_parameters()}
        moved, rows = head_rows.moved(state, own, path)
        return moved, lines + rows

    def no_weight_decay(self) -> set[str]:
        return {name for name, _ in self.named_parameters() if name.endswith(".attn.scale")}

    @classmethod
    def import_reference(cls, state: dict[str, Tensor]) -> dict[str, Tensor]:
        return {VideoViT.published.ours(name): value for name, value in state.items()}
