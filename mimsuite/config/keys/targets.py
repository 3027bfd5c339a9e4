"""`target:` what methods predict. Nothing here imports torch."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from mimsuite.config.keys.section import Section
from mimsuite.config.keys.teachers import TeacherSection
from mimsuite.config.keys.tokenizers import TokenizerSection


class PixelTargetSection(Section):
    """`target:` the pixels of each masked patch."""

    kind: Literal["pixels"] = "pixels"
    normalize: bool  # each patch to zero mean and unit variance (MAE's norm_pix_loss)


class TokenTargetSection(Section):
    """`target:` the code of each masked patch."""

    kind: Literal["tokens"] = "tokens"
    tokenizer: TokenizerSection


class FeatureLossSection(Section):
    """How features of a teacher become targets, and the loss of predicting them."""

    normalize: Literal["layer-norm", "unit", "none"]  # each token: LayerNorm without affine, or
    # to unit length, or as it is
    loss: Literal["mse", "l1", "smooth-l1", "cosine"]
    weight: Annotated[float, Field(ge=0.0)] = 1.0  # factor of this loss


class FeatureTargetSection(FeatureLossSection):
    """`target:` features of a frozen teacher."""

    kind: Literal["features"] = "features"
    teacher: TeacherSection


class LatentTargetSection(FeatureLossSection):
    """`target:` latents of a momentum copy of the encoder."""

    kind: Literal["latents"] = "latents"
