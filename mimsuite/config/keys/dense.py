"""`data:`, `model:`, `target:` and `optim:` of dense probes: linear heads on frozen patch features.
Nothing here imports torch."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from mimsuite.config.keys.encoders import EncoderSection, ViTSection
from mimsuite.config.keys.section import Key, Positive, Section, Size
from mimsuite.config.keys.shared import DataSection, OptimSection

Metres = Annotated[float, Field(gt=0.0)]


class DenseDataSection(DataSection):
    """`data:` a folder of images with truth for each pixel."""

    # As published; scenes: as `mimsuite data synth scenes` writes them
    layout: Literal["scenes", "ade20k", "voc", "nyuv2"]

    @model_validator(mode="after")
    def _is_one_set(self) -> DenseDataSection:
        for key in ("mixture", "folds", "per_class"):
            if getattr(self, key) is not None:
                raise ValueError(f"data.{key} is not for dense probes: set it to null")
        return self


class DenseModelSection(Section):
    """`model:` the frozen encoder; nothing else has weights before the probe is trained."""

    encoder: EncoderSection = ViTSection()


class SegmentsSection(Section):
    """The class of each pixel: a linear head, and nearest neighbours."""

    bank: Positive = 16384  # training patches among which neighbours are looked for


class DepthSection(Section):
    """The distance of each pixel: a linear head, of its logarithm."""

    nearest: Metres  # metres; truth below counts for nothing, predictions are not below it
    farthest: Metres  # likewise above
    # Rows and columns of the stored truth that are scored, [top, bottom, left, right); null: all
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
    """`target:` what is told of each pixel."""

    kind: Literal["dense"] = "dense"
    # Label resolution: truth is scaled to it, nearest, for training
    resolution: Annotated[Size, Key.SIZE]
    # Test figures at `resolution`, or with predictions scaled up to each mask as it is stored
    scored: Literal["resolution", "stored"] = "resolution"
    pixels: Positive = 256  # of each image that a training step looks at, drawn anew
    segments: SegmentsSection | None = None
    depth: DepthSection | None = None

    @model_validator(mode="after")
    def _has_some(self) -> DenseTargetSection:
        if self.segments is None and self.depth is None:
            raise ValueError("neither segments nor depth: set at least one of them")
        if self.depth is not None and self.depth.crop and self.scored != "stored":
            raise ValueError("depth.crop is of stored pixels: set scored to stored")
        return self


class DenseOptimSection(OptimSection):
    """`optim:` of the heads; several learning rates are trained side by side."""

    name: Literal["adamw"] = "adamw"
    factors: tuple[Annotated[float, Field(gt=0.0)], ...] = (1.0,)  # of the rate; validation chooses
