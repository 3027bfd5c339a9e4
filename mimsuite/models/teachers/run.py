"""An encoder trained by this suite, or published weights that it can read, as a teacher.

Letters: B batch, C class tokens, N tokens, D width.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from mimsuite.batch import Batch
from mimsuite.config.keys.encoders import ViTSection
from mimsuite.config.keys.teachers import RunTeacherSection
from mimsuite.errors import UserError
from mimsuite.models.attention import attention_inputs, cls_attention, split_heads
from mimsuite.models.encoder import Encoder, ImageEncoder
from mimsuite.models.features import Features
from mimsuite.models.teachers.base import Backbone, TeacherFeatures, Wanted
from mimsuite.models.teachers.files import require
from mimsuite.models.trained import open_trained
from mimsuite.models.vit import ViT

_WHERE = "a run directory, checkpoint or export of mimsuite, or published weights that it can read"


class EncoderTeacher(Backbone):
    """An encoder's features, exactly as probes read them."""

    def __init__(self, encoder: Encoder, layer: int | None = None) -> None:
        super().__init__()
        self.encoder = encoder
        if layer is not None:
            _cut(encoder, layer)

    def last_norm(self) -> nn.Module | None:
        return self.encoder.norm

    def forward(self, images: Tensor, wanted: Wanted) -> TeacherFeatures:
        encoder = self.encoder
        depth = encoder.depth
        numbers = {*wanted.qkv, *([depth] if wanted.cls_attention else [])}
        blocks: Any = encoder.blocks if numbers else ()
        with attention_inputs(blocks, numbers) as inputs:
            features = self._encoded(images, wanted)
        qkv = {n: split_heads(blocks[n - 1].attn, tokens) for n, tokens in inputs.items()}
        prefix = features.cls.shape[1]
        return TeacherFeatures(
            cls=features.cls[:, 0] if prefix else None,
            tokens=features.tokens,
            hidden=features.layers,
            cls_attention=cls_attention(qkv[depth], prefix) if wanted.cls_attention else None,
            qkv={number: qkv[number] for number in wanted.qkv},
        )

    def _encoded(self, images: Tensor, wanted: Wanted) -> Features:
        encoder = self.encoder
        if wanted.ids is None:
            return encoder.encode(Batch.of_images(images), layers=wanted.hidden)
        if not isinstance(encoder, ImageEncoder):
            raise UserError("a teacher that sees only some tokens must be an encoder of images")
        patches = encoder.patches(images, wanted.ids)
        features: Features = encoder(patches, wanted.ids, layers=wanted.hidden)
        return features


def load(
    section: RunTeacherSection, grid: tuple[int, int], key: str, weights: bool = True
) -> EncoderTeacher:
    """The trained encoder of ``section.weights``, or a fresh one of the recipe's shape.

    Raises:
        UserError: no usable weights, or their shape contradicts the recipe.
    """
    if not weights:
        return EncoderTeacher(ViT(_fresh(section, grid)), section.layer)
    path = require(section.weights, key, _WHERE)
    opened = open_trained(path)
    encoder: Any = opened.method.encoder
    for name in ("patch_size", "width", "depth", "heads", "class_tokens"):
        actual, expected = getattr(encoder.section, name, None), getattr(section, name)
        if None not in (actual, expected) and actual != expected:
            raise UserError(
                f"{key}.{name} is {expected}, {section.weights} has {actual}: "
                f"set {key}.{name}={actual}"
            )
    teacher = EncoderTeacher(encoder, section.layer)
    augment = opened.resolved.recipe.augment
    teacher.statistics = augment.mean, augment.std
    return teacher


def _fresh(section: RunTeacherSection, grid: tuple[int, int]) -> ViTSection:
    return ViTSection(
        image_size=section.input_size(grid),
        patch_size=section.patch_size,
        width=section.width,
        depth=section.depth,
        heads=section.heads,
        mlp_ratio=section.mlp_ratio,
        class_tokens=1 if section.class_tokens is None else section.class_tokens,
    )


def _cut(encoder: Any, layer: int) -> None:
    """Remove the blocks after ``layer``; the last norm stays."""
    if not isinstance(encoder, ViT):
        raise UserError(f"a teacher's layer is for plain vision transformers, not {type(encoder)}")
    encoder.blocks = nn.ModuleList(list(encoder.blocks)[:layer])
    encoder.depth = layer
