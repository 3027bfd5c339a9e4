"""CrossMAE: Rethinking Patch Dependence for Masked Autoencoders (Fu, Lian, Wang, Shi, Wang, Li,
Yala, Darrell, Efros and Goldberg, arXiv:2401.14391).

MAE with a decoder in which mask tokens do not attend to each other but to the encoder's layers
(section 3.2 of the paper), so each is predicted independently. Decoding a part of the masked
patches is enough (section 3.3): ``mask.decode_ratio`` of all patches.

The decoder is :mod:`mimsuite.models.cross_decoder`. It normalises the mixtures of layers that it
reads, so the published encoder has no last norm (``model.encoder.final_norm``).
"""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import model_validator

from mimsuite.config.keys.encoders import CrossDecoderSection, ViTSection
from mimsuite.config.keys.masks import PartlyDecodedSection
from mimsuite.config.keys.section import FirstBlocks, Section
from mimsuite.config.keys.shared import MethodCard, MethodSection
from mimsuite.methods.mae import MAE, MAERecipe


class CrossMAESection(MethodSection):
    """`method:` CrossMAE."""

    name: Literal["crossmae"]
    # optim.lr_per_256 holds for decoding all masked patches. If a share k of all patches is decoded
    # and a share r masked, linear: times k / r; inverse: times r / k
    rate_scale: Literal["linear", "inverse", "none"] = "linear"


class CrossModelSection(Section):
    """`model:` an encoder of the visible tokens, and a decoder that attends to its layers."""

    encoder: ViTSection = ViTSection(final_norm=False)
    decoder: CrossDecoderSection
    freeze: FirstBlocks = 0  # freeze the embeddings and this many first blocks; 0: train all


class CrossMAERecipe(MAERecipe):
    """A recipe for CrossMAE pretraining."""

    card: ClassVar[MethodCard] = MethodCard("arXiv:2401.14391", "verified", ("step", "trajectory"))

    method: CrossMAESection  # type: ignore[assignment]
    model: CrossModelSection  # type: ignore[assignment]
    mask: PartlyDecodedSection  # type: ignore[assignment]

    @property
    def rate_factor(self) -> float:
        """Depends on the share of masked patches that is decoded, as published."""
        share = (self.mask.decode_ratio or self.mask.ratio) / self.mask.ratio
        return {"linear": share, "inverse": 1 / share, "none": 1.0}[self.method.rate_scale]

    @model_validator(mode="after")
    def _something_is_masked(self) -> CrossMAERecipe:
        if self.mask.ratio == 0:
            raise ValueError("mask.ratio 0 leaves nothing to decode")
        return self


class CrossMAE(MAE):
    """Masked autoencoder with a cross-attention decoder; published names are MAE's."""

    Recipe = CrossMAERecipe
