"""Encoders and decoders."""

from __future__ import annotations

from mimsuite.config.section import Section
from mimsuite.models.encoder import Encoder
from mimsuite.models.features import Features
from mimsuite.models.mae_decoder import MAEDecoder
from mimsuite.models.vit import ViT

__all__ = ["Encoder", "Features", "MAEDecoder", "ViT", "build_encoder"]

_ENCODERS: dict[str, type[Encoder]] = {"vit": ViT}


def build_encoder(section: Section) -> Encoder:
    """The encoder that a recipe's ``model.encoder`` section describes, by its ``kind``."""
    return _ENCODERS[section.kind](section)  # type: ignore[attr-defined, call-arg]
