"""Encoders and decoders."""

from __future__ import annotations

from mimsuite.config.sections import ViTSection
from mimsuite.models.encoder import Encoder
from mimsuite.models.features import Features
from mimsuite.models.mae_decoder import MAEDecoder
from mimsuite.models.vit import ViT

__all__ = ["Encoder", "Features", "MAEDecoder", "ViT", "build_encoder"]

_ENCODERS = {ViTSection: ViT}


def build_encoder(section: ViTSection) -> ViT:
    """The encoder that a recipe's ``model.encoder`` section describes."""
    return _ENCODERS[type(section)](section)
