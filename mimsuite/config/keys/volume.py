"""`model:`, `mask:`, `target:` and `augment:` of methods on radiance grids. Torch-free.

Sections of methods that learn from labelled grids: :mod:`mimsuite.config.keys.volume_tasks`.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from mimsuite.config.keys.section import (
    Dimension,
    DropPath,
    FirstBlocks,
    Fraction,
    Key,
    Positive,
    Range,
    Section,
)

Stages = tuple[Positive, Positive, Positive, Positive]


class Swin3DSection(Section):
    """A hierarchical transformer with window attention in 3-D (Liu et al., arXiv:2103.14030)."""

    view: ClassVar[str] = "grid"  # the view of a batch that the encoder reads

    kind: Literal["swin3d"] = "swin3d"
    resolution: Dimension = 160  # voxels a side; smaller scenes are padded at the far end
    patch_size: Dimension = 4  # voxels
    in_channels: Positive = 4  # red, green, blue and opacity
    width: Dimension = 96  # width of the first stage; it doubles with each stage
    depths: Annotated[Stages, Key.SIZE] = (2, 2, 18, 2)  # blocks in each stage
    heads: Annotated[Stages, Key.SIZE] = (3, 6, 12, 24)  # attention heads in each stage
    window: Positive = 4  # side of an attention window in tokens
    mlp_ratio: Annotated[float, Field(gt=0.0)] = 4.0
    drop_path: DropPath = 0.1  # rate in the last block; rises linearly from 0 in the first
    norm_eps: Annotated[float, Field(gt=0.0)] = 1e-5

    @property
    def side(self) -> int:
        """Tokens along a side in the first stage."""
        return self.resolution // self.patch_size

    @property
    def grid(self) -> tuple[int, int, int]:
        """Tokens along each axis in the first stage."""
        return (self.side, self.side, self.side)

    @model_validator(mode="after")
    def _fits(self) -> Swin3DSection:
        unit = self.patch_size * 2 ** (len(self.depths) - 1)
        if self.resolution % unit:
            raise ValueError(
                f"resolution {self.resolution} must be a multiple of {unit} voxels, or the stages "
                f"do not line up"
            )
        if self.width % 6:
            raise ValueError(f"width {self.width} must be a multiple of 6 for 3-D positions")
        for stage, heads in enumerate(self.heads):
            if (self.width << stage) % heads:
                raise ValueError(
                    f"heads {heads} of stage {stage + 1} do not divide its width "
                    f"{self.width << stage}"
                )
        return self


class VolumeDecoderSection(Section):
    """Decoder from the encoder's stages to every voxel.

    `unet` is the published one: transposed and residual convolutions up to full resolution, which
    take most of a step's time. `light` stops at the tokens of the first stage and predicts their
    voxels by one linear layer: a different, much cheaper model.
    """

    kind: Literal["unet", "light"] = "unet"


class VolumeModelSection(Section):
    """`model:` an encoder of all tokens, with masked tokens replaced, and a decoder."""

    encoder: Swin3DSection = Swin3DSection()
    decoder: VolumeDecoderSection = VolumeDecoderSection()
    freeze: FirstBlocks = 0  # freeze the embeddings and this many first blocks; 0: train all


class VolumeMaskSection(Section):
    """`mask:` cubes of tokens, each one attention window."""

    kind: Literal["cubes"] = "cubes"
    ratio: Annotated[float, Field(gt=0.0, lt=1.0)]
    cube: Positive = 4  # side in tokens; incomplete cubes at the far ends are never masked
    # exact: the same number of cubes in each sample. bernoulli: an independent draw per cube,
    # shared by the whole batch, so the masked share varies between steps, as in published code.
    draw: Literal["exact", "bernoulli"] = "exact"

    def require_cubes(self, side: int) -> None:
        """Refuse, with ``ValueError``, a ratio that masks every cube of ``side`` tokens along an
        axis, or none."""
        cubes = (side // self.cube) ** 3
        masked = round(cubes * self.ratio)
        if masked in (0, cubes):
            raise ValueError(
                f"mask.ratio {self.ratio} masks {masked} of {cubes} cubes of mask.cube {self.cube} "
                f"tokens: at least one must be masked and one left"
            )


class RadianceTargetSection(Section):
    """`target:` colour of occupied voxels and opacity of masked voxels."""

    kind: Literal["radiance"] = "radiance"
    occupied: Fraction = 0.01  # lowest opacity of a voxel whose colour is learnt
    rgb_region: Literal["occupied", "occupied-masked"] = "occupied"  # voxels with a colour loss


class GridAugmentSection(Section):
    """`augment:` random quarter turns about the upright axis and random mirroring."""

    rotate: Fraction = 0.5  # probability of a quarter turn
    flip: Fraction = 0.5  # probability of mirroring, for x and y each
    density_kind: Literal["log", "linear", "alpha"] | None = None  # for files that do not state it
    delta: Annotated[float, Field(gt=0.0)] = 0.01  # absorption length, if the file has none
    turn_scale: Fraction = 0.0  # probability of a small turn (upright axis) with rescaling
    turn_degrees: Annotated[float, Field(ge=0.0, le=45.0)] = 10.0  # largest small turn, degrees
    scale: Range = (0.9, 1.1)  # divisor of the side length

    @property
    def mean(self) -> tuple[float, ...]:
        """Mean 0: colours are not standardised."""
        return (0.0,)

    @property
    def std(self) -> tuple[float, ...]:
        """Deviation 1: colours are not standardised."""
        return (1.0,)
