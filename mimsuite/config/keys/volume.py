"""`model:`, `mask:`, `target:` and `augment:` of methods on radiance grids. Torch-free.

What is learnt of labelled grids is in :mod:`mimsuite.config.keys.volume_tasks`.
"""

from __future__ import annotations

from typing import Annotated, Literal

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
    """A hierarchical transformer on windows of a volume (Liu et al., arXiv:2103.14030, in 3-D)."""

    kind: Literal["swin3d"] = "swin3d"
    resolution: Dimension = 160  # voxels a side; smaller scenes are padded at the far end
    patch_size: Dimension = 4  # voxels
    in_channels: Positive = 4  # colour and opacity
    width: Dimension = 96  # of the first stage; each further one has twice as much
    depths: Annotated[Stages, Key.SIZE] = (2, 2, 18, 2)  # blocks of each stage
    heads: Annotated[Stages, Key.SIZE] = (3, 6, 12, 24)  # likewise
    window: Positive = 4  # tokens a side
    mlp_ratio: Annotated[float, Field(gt=0.0)] = 4.0
    drop_path: DropPath = 0.1  # of the last block; grows linearly from 0 in the first
    norm_eps: Annotated[float, Field(gt=0.0)] = 1e-5

    @property
    def side(self) -> int:
        """Tokens a side in the first stage."""
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
    """From the stages of the encoder to every voxel.

    `unet` is the published one: transposed and residual convolutions up to full resolution, where
    nearly all of a step's work is. `light` ends at the first stage's tokens and predicts the voxels
    of each by one linear layer: another, much cheaper model.
    """

    kind: Literal["unet", "light"] = "unet"


class VolumeModelSection(Section):
    """`model:` an encoder of all tokens, masked ones replaced, and a decoder."""

    encoder: Swin3DSection = Swin3DSection()
    decoder: VolumeDecoderSection = VolumeDecoderSection()
    freeze: FirstBlocks = 0  # keep the embeddings and so many first blocks as they are


class VolumeMaskSection(Section):
    """`mask:` cubes of tokens, one attention window each."""

    kind: Literal["cubes"] = "cubes"
    ratio: Annotated[float, Field(gt=0.0, lt=1.0)]
    cube: Positive = 4  # tokens a side; what is left over at the far ends is never masked
    # exact: so many cubes of each sample. bernoulli: each cube by a throw of its own, the same
    # for the whole batch, so that the share varies from step to step, as in published code.
    draw: Literal["exact", "bernoulli"] = "exact"


class RadianceTargetSection(Section):
    """`target:` colour of occupied voxels and opacity of masked ones."""

    kind: Literal["radiance"] = "radiance"
    occupied: Fraction = 0.01  # opacity from which a voxel has a colour to be learnt
    rgb_region: Literal["occupied", "occupied-masked"] = "occupied"  # where colour carries loss


class GridAugmentSection(Section):
    """`augment:` quarter turns about the upright axis and mirror images, each by a throw."""

    rotate: Fraction = 0.5  # probability of a quarter turn
    flip: Fraction = 0.5  # probability of a mirrored axis, x and y each
    density_kind: Literal["log", "linear", "alpha"] | None = None  # of files that do not say
    delta: Annotated[float, Field(gt=0.0)] = 0.01  # length that absorbs light, where not said
    turn_scale: Fraction = 0.0  # probability of a small turn about the upright axis, with a scale
    turn_degrees: Annotated[float, Field(ge=0.0, le=45.0)] = 10.0  # largest such turn
    scale: Range = (0.9, 1.1)  # what a side may be divided by

    @property
    def mean(self) -> tuple[float, ...]:
        """Colours are not standardised."""
        return (0.0,)

    @property
    def std(self) -> tuple[float, ...]:
        """Likewise."""
        return (1.0,)
