"""`data:`, `model:`, `target:` and `optim:` of dense probes (heads on frozen patch features).
Nothing here imports torch."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from mimsuite.config.keys.encoders import EncoderSection, ViTSection
from mimsuite.config.keys.section import Key, Positive, Section, Size
from mimsuite.config.keys.shared import DataSection, OptimSection

Metres = Annotated[float, Field(gt=0.0)]


class DenseDataSection(DataSection):
    """`data:` a folder of images with per-pixel ground truth."""

    # Folder layout: a published data set's, or scenes: that of `mimsuite data synth scenes`
    layout: Literal["scenes", "ade20k", "voc", "nyuv2"]

    @model_validator(mode="after")
    def _is_one_set(self) -> DenseDataSection:
        for key in ("mixture", "folds", "per_class"):
            if getattr(self, key) is not None:
                raise ValueError(f"data.{key} is not for dense probes: set it to null")
        return self


class DenseModelSection(Section):
    """`model:` the frozen encoder."""

    encoder: EncoderSection = ViTSection()
    # What heads read of each patch; patches+classes: the mean of the class tokens beside it
    read: Literal["patches", "patches+classes"] = "patches"


class SegmentsSection(Section):
    """Semantic segmentation: a linear head, and nearest neighbours."""

    bank: Positive = 16384  # training patches that neighbours are searched in


class DepthSection(Section):
    """Depth of each pixel: a linear head that predicts its logarithm."""

    nearest: Metres  # metres; nearer truth is ignored, nearer predictions are clipped to it
    farthest: Metres  # metres; farther truth is ignored, farther predictions are clipped to it
    # Scored part of the stored truth in pixels, [top, bottom, left, right), ends excluded; null:
    # all of it
    crop: tuple[int, Positive, int, Positive] | None = None

    @model_validator(mode="after")
    def _grows(self) -> DepthSection:
        if self.farthest <= self.nearest:
            raise ValueError(f"farthest {self.farthest} is not beyond nearest {self.nearest}")
        if self.crop is not None:
            top, bottom, left, right = self.crop
            if not (0 <= top < bottom and 0 <= left < right):
                raise ValueError("crop is [top, bottom, left, right], and holds no pixel")
        return self


class DenseTargetSection(Section):
    """`target:` the per-pixel tasks: segmentation, depth or both."""

    kind: Literal["dense"] = "dense"
    # Training resolution in pixels; truth is resized to it by nearest neighbour
    resolution: Annotated[Size, Key.SIZE]
    # Test at `resolution`, or with predictions resized to the truth as it is stored
    scored: Literal["resolution", "stored"] = "resolution"
    pixels: Positive = 256  # random pixels per image in a training step
    segments: SegmentsSection | None = None
    depth: DepthSection | None = None

    @model_validator(mode="after")
    def _has_some(self) -> DenseTargetSection:
        if self.segments is None and self.depth is None:
            raise ValueError("neither segments nor depth: set at least one of them")
        if self.depth is not None and self.depth.crop and self.scored != "stored":
            raise ValueError("depth.crop counts stored pixels: set scored to stored")
        return self


class DenseOptimSection(OptimSection):
    """`optim:` of the heads. Heads for several learning rates are trained side by side."""

    name: Literal["adamw"] = "adamw"
    # Factors of the learning rate to try; validation chooses one
    factors: tuple[Annotated[float, Field(gt=0.0)], ...] = (1.0,)
