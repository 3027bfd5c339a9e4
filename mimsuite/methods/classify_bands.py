"""Supervised classification of time series of rasters: fine-tuning of an encoder that
:mod:`mimsuite.methods.mae_bands` pretrained, and the probe of a frozen one.

As :mod:`mimsuite.methods.classify`, and the encoder reads place and dates where it takes them.
Mixup and cutmix mix pixels and classes; place and dates stay those of the first of a pair.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import model_validator

from mimsuite.config.keys.bands import (
    RasterAugmentSection,
    RasterDataSection,
    RasterViTSection,
)
from mimsuite.config.keys.shared import MethodCard, MethodSection
from mimsuite.methods.classify import Classifier, ClassifierSection, ClassifyRecipe
from mimsuite.models import RasterViT


class BandsClassifySection(MethodSection):
    """`method:` classification has no keys of its own."""

    name: Literal["classify-bands"]


class BandsClassifierSection(ClassifierSection):
    """`model:` an encoder of tubelets of rasters and a linear head."""

    encoder: RasterViTSection = RasterViTSection()  # type: ignore[assignment]
    # Input of the head. mean: mean token, then a fresh norm; attentive: pooling by a trained query
    pool: Literal["mean", "attentive"] = "mean"  # type: ignore[assignment]


class BandsClassifyRecipe(ClassifyRecipe):
    """A recipe for fine-tuning on rasters."""

    card: ClassVar[MethodCard] = MethodCard("arXiv:2412.02732", "experimental", ())

    method: BandsClassifySection  # type: ignore[assignment]
    model: BandsClassifierSection
    data: RasterDataSection = RasterDataSection()
    augment: RasterAugmentSection = RasterAugmentSection()  # type: ignore[assignment]

    @model_validator(mode="after")
    def _turned_windows_keep_their_shape(self) -> BandsClassifyRecipe:
        self.augment.require_turnable(self.model.encoder.size)
        return self


class BandsClassifier(Classifier):
    """An encoder of rasters with a classification head."""

    Recipe = BandsClassifyRecipe  # type: ignore[assignment]
    view = "clip"
    encoder: RasterViT

    def no_weight_decay(self) -> set[str]:
        return {name for name, _ in self.named_parameters() if "added." in name}
