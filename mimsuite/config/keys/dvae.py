"""`model:` of discrete autoencoders, convolutional. Nothing here imports torch."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import model_validator

from mimsuite.config.keys.section import (
    Dimension,
    Key,
    Positive,
    Section,
    Size,
    height_width,
    require_patches,
)

Stride = Literal[2, 4, 8, 16, 32]  # pixels per code along a side; each layer halves the image


class CodeEncoderSection(Section):
    """Convolutions from an image to scores of all codes at every position."""

    kind: Literal["dvae"]
    image_size: Annotated[Size, Key.SIZE | Key.FREE]  # pixels, one number or [height, width]
    patch_size: Annotated[Stride, Key.SIZE] = 8  # pixels per code along a side
    in_channels: Positive = 3
    width: Dimension = 256  # channels
    depth: Dimension = 2  # residual blocks at the resolution of the codes
    codes: Positive = 8192  # size of the vocabulary

    @property
    def grid(self) -> tuple[int, int]:
        """Codes per column and per row."""
        height, width = height_width(self.image_size)
        return height // self.patch_size, width // self.patch_size

    @model_validator(mode="after")
    def _fits(self) -> CodeEncoderSection:
        require_patches(self.patch_size, height_width(self.image_size))
        if self.codes < 2:
            raise ValueError("codes 1: every position would have the same code; set at least 2")
        return self


class CodeDecoderSection(Section):
    """Convolutions from code vectors to an image, mirroring the encoder."""

    width: Dimension = 256  # channels
    depth: Dimension = 2  # residual blocks at the resolution of the codes
    code_width: Positive = 512  # width of a code vector


class CodeModelSection(Section):
    """`model:` an encoder to codes and a decoder from codes."""

    encoder: CodeEncoderSection
    decoder: CodeDecoderSection = CodeDecoderSection()
