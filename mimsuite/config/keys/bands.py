"""`model:`, `target:`, `data:` and `augment:` of methods on rasters of many bands. Torch-free."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from mimsuite.config.keys.section import (
    Dimension,
    FirstBlocks,
    Fraction,
    Key,
    Name,
    Positive,
    Section,
)
from mimsuite.config.keys.shared import DataSection
from mimsuite.config.keys.video import ClipDecoderSection, VideoViTSection

_WIDTHS = 16  # time has 4 sixteenths of the width, rows and columns 6 each


def _check_width(width: int) -> None:
    if width % _WIDTHS:
        raise ValueError(f"width {width} must be a multiple of {_WIDTHS} for 3-D positions")


class RasterViTSection(VideoViTSection):
    """A transformer of tubelets of a time series of rasters, without class token; sin-cos
    positions of time, row and column."""

    kind: Literal["raster-vit"] = "raster-vit"  # type: ignore[assignment]
    frames: Annotated[Positive, Key.SIZE | Key.FREE] = 3  # dates of a sample
    tubelet: Positive = 1  # dates of a token
    in_channels: Positive = 6  # bands
    location: Annotated[bool, Key.FREE] = (
        False  # add a code of latitude and longitude to every token
    )
    dates: Annotated[bool, Key.FREE] = (
        False  # add a code of year and day of the year to the tokens of a date
    )

    @model_validator(mode="after")
    def _positions_fit(self) -> RasterViTSection:
        _check_width(self.width)
        return self


class RasterDecoderSection(ClipDecoderSection):
    """A light transformer that rebuilds hidden tubelets."""

    width: Dimension = 512
    depth: Dimension = 8
    heads: Dimension = 16

    @model_validator(mode="after")
    def _positions_fit(self) -> RasterDecoderSection:
        _check_width(self.width)
        return self


class RasterAutoencoderSection(Section):
    """`model:` an encoder of the visible tubelets and a decoder of the hidden ones."""

    encoder: RasterViTSection = RasterViTSection()
    decoder: RasterDecoderSection = RasterDecoderSection()
    freeze: FirstBlocks = 0  # keep the embeddings and this many first blocks as they are


class RasterTargetSection(Section):
    """`target:` the observed pixels of each hidden tubelet."""

    kind: Literal["observed"] = "observed"
    normalize: bool  # each tubelet and band to zero mean and unit variance of what was observed


class RasterDataSection(DataSection):
    """`data:` of rasters."""

    channels: Literal["native"] = "native"  # see `bands`
    bands: tuple[Name, ...] | None = None  # names, or numbers from 1, in this order; null: all
    max_pixels: Positive = 64_000_000  # largest window


class RasterAugmentSection(Section):
    """`augment:` which part of a raster becomes a sample. Nothing is resized: a pixel keeps its
    size on the ground."""

    repeats: Positive = 1  # windows of one reading
    hflip: Fraction = 0.0  # probability of mirrored columns
    vflip: Fraction = 0.0  # probability of mirrored rows
    rotate: Fraction = 0.0  # probability of one to three quarter turns
    # probability that a band is taken from all dates of a window: neither seen nor predicted
    band_dropout: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    location_dropout: Fraction = 0.0  # probability that the place is not told
    date_dropout: Fraction = 0.0  # probability that the dates are not told
    # bands that pictures show as red, green and blue, counted from 1
    shown: tuple[Positive, Positive, Positive] = (1, 2, 3)
    mean: tuple[float, ...] = (0.0,)  # per band, of stored values; see `mimsuite data stats`
    std: tuple[float, ...] = (1.0,)

    def require_turnable(self, size: tuple[int, int, int]) -> None:
        """Refuse, with ``ValueError``, quarter turns of windows (dates, rows, columns) that are no
        squares."""
        _, height, width = size
        if self.rotate and height != width:
            raise ValueError(f"augment.rotate: {height} x {width} pixels must be a square")
