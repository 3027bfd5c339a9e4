"""Encoders and decoders."""

from __future__ import annotations

from collections.abc import Iterable
from typing import cast

from mimsuite.config.keys.encoders import CrossDecoderSection, DecoderSection
from mimsuite.config.keys.section import Section
from mimsuite.models.attentive import build_pooler
from mimsuite.models.beit import BEiT
from mimsuite.models.cae import FeatureHead, Regressor, TokenDecoder
from mimsuite.models.clip_encoder import ClipEncoder
from mimsuite.models.clip_predictor import ClipPredictor
from mimsuite.models.clip_vit import ClipViT
from mimsuite.models.conv_decoder import ConvDecoder
from mimsuite.models.conv_vit import ConvViT
from mimsuite.models.crate import Crate
from mimsuite.models.crate_decoder import CrateDecoder
from mimsuite.models.cross_decoder import CrossDecoder
from mimsuite.models.cube_vit import CubeViT
from mimsuite.models.encoder import Encoder, ImageEncoder
from mimsuite.models.features import Features
from mimsuite.models.mae_decoder import MAEDecoder
from mimsuite.models.part_head import PartHead
from mimsuite.models.point_decoder import PointDecoder
from mimsuite.models.point_head import PointHead
from mimsuite.models.point_transformer import ClassToken, PointTransformer
from mimsuite.models.post_norm_vit import PostNormViT
from mimsuite.models.predictor import Predictor
from mimsuite.models.prototypes import Clusters, Prototypes
from mimsuite.models.query_decoder import QueryDecoder
from mimsuite.models.raster_vit import PlaceAndDates, RasterViT
from mimsuite.models.register_vit import RegisterViT
from mimsuite.models.video_decoder import ClipDecoder
from mimsuite.models.video_vit import VideoViT
from mimsuite.models.vit import ViT

__all__ = [
    "BEiT",
    "ClassToken",
    "ClipDecoder",
    "ClipEncoder",
    "ClipPredictor",
    "ClipViT",
    "Clusters",
    "ConvDecoder",
    "ConvViT",
    "Crate",
    "CrateDecoder",
    "CrossDecoder",
    "CubeViT",
    "Encoder",
    "FeatureHead",
    "Features",
    "ImageEncoder",
    "MAEDecoder",
    "PartHead",
    "PlaceAndDates",
    "PointDecoder",
    "PointHead",
    "PointTransformer",
    "PostNormViT",
    "Predictor",
    "Prototypes",
    "QueryDecoder",
    "RasterViT",
    "RegisterViT",
    "Regressor",
    "TokenDecoder",
    "ViT",
    "VideoViT",
    "build_decoder",
    "build_encoder",
    "build_pooler",
    "encoder_named",
]

_ENCODERS: dict[str, type[Encoder]] = {
    "vit": ViT,
    "post-norm-vit": PostNormViT,
    "beit": BEiT,
    "convvit": ConvViT,
    "crate": Crate,
    "video-vit": VideoViT,
    "clip-vit": ClipViT,
    "cube-vit": CubeViT,
    "raster-vit": RasterViT,
    "register-vit": RegisterViT,
}


def build_encoder(section: Section) -> Encoder:
    """The encoder that a recipe's ``model.encoder`` section describes, by its ``kind``."""
    return _ENCODERS[section.kind](section)  # type: ignore[attr-defined, call-arg]


def build_decoder(
    section: Section, encoder: ImageEncoder, out_width: int
) -> MAEDecoder | CrossDecoder:
    """The decoder of image patches that a ``model.decoder`` section describes, by its ``kind``.

    Args:
        out_width: numbers predicted per token.
    """
    if isinstance(section, CrossDecoderSection):
        return CrossDecoder(section, encoder, out_width)
    return MAEDecoder(cast(DecoderSection, section), encoder, out_width)


def encoder_named(names: Iterable[str]) -> type[Encoder]:
    """The encoder class of a published checkpoint, by its tensor names; a plain ViT by default."""
    marks = {mark: kind for kind in _ENCODERS.values() if (mark := kind.published_mark)}
    return next((marks[m] for name in names for m in marks if name.startswith(m)), ViT)
