"""`model:`, `target:`, `data:` and `augment:` of methods on medical scans. Torch-free.

Axes are right, front and head (RAS+), called x, y and z.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, Tag, model_validator

from mimsuite.config.keys.encoders import AdaptChannels, Inflate
from mimsuite.config.keys.section import (
    Dimension,
    DropPath,
    FirstBlocks,
    Fraction,
    Key,
    Positive,
    Section,
    by_kind,
    require_divides,
)
from mimsuite.config.keys.shared import DataSection
from mimsuite.config.keys.video import ClipDecoderSection
from mimsuite.config.keys.volume import Swin3DSection, VolumeDecoderSection

Millimetres = Annotated[float, Field(gt=0.0, le=100.0)]
Sides = Positive | tuple[Positive, Positive, Positive]


def _check_width(width: int, heads: int) -> None:
    if width % 6:
        raise ValueError(f"width {width} must be a multiple of 6 for 3-D positions")
    require_divides("heads", heads, "width", width)


def _check_rise(low: float, high: float) -> None:
    if low >= high:
        raise ValueError(f"low {low:g} must be below high {high:g}")


class CubeViTSection(Section):
    """A transformer of cubes of a volume, without class token; sin-cos positions along x, y, z."""

    kind: Literal["cube-vit"] = "cube-vit"
    crop: Annotated[Sides, Key.SIZE | Key.FREE] = 96  # voxels, one number or [x, y, z]
    patch_size: Dimension = 16  # voxels a side of a cube
    in_channels: Positive = 1
    adapt_channels: AdaptChannels = None  # --init-from, other channels: mean, repeat; null: refuse
    inflate: Inflate = None  # --init-from an image transformer: mean, centre; null: refuse
    width: Dimension = 768  # a multiple of 6
    depth: Dimension = 12
    heads: Dimension = 12
    mlp_ratio: Annotated[float, Field(gt=0.0)] = 4.0
    drop_path: DropPath = 0.0  # in the last block; grows linearly from 0 in the first
    norm_eps: Annotated[float, Field(gt=0.0)] = 1e-6
    final_norm: Annotated[bool, Key.FREE] = True  # over the output
    layer_scale: Annotated[float, Field(ge=0.0), Key.FREE] = 0.0  # initial value; 0: none
    cosine_attention: bool = False  # normalised queries and keys, a trained scale a head
    # [x, y, z] voxels that weights were trained at, where they are others.
    trained_size: Annotated[tuple[Positive, Positive, Positive] | None, Key.FREE] = None

    @property
    def size(self) -> tuple[int, int, int]:
        """(X, Y, Z) voxels of a crop."""
        return (self.crop,) * 3 if isinstance(self.crop, int) else self.crop

    @property
    def tubelet(self) -> int:
        """Voxels of a token along x, as along the others."""
        return self.patch_size

    @property
    def grid(self) -> tuple[int, int, int]:
        """Tokens along each axis."""
        return self.grid_of(self.size)

    def grid_of(self, size: tuple[int, int, int]) -> tuple[int, int, int]:
        """The grid of crops of another size."""
        x, y, z = (side // self.patch_size for side in size)
        return x, y, z

    @model_validator(mode="after")
    def _fits(self) -> CubeViTSection:
        for size in (self.size, self.trained_size or self.size):
            if any(side % self.patch_size for side in size):
                sides = " x ".join(map(str, size))
                raise ValueError(f"patch_size {self.patch_size} does not divide a crop of {sides}")
        _check_width(self.width, self.heads)
        return self


class CubeDecoderSection(ClipDecoderSection):
    """A light transformer that rebuilds cubes."""

    depth: Dimension = 8
    heads: Dimension = 12

    @model_validator(mode="after")
    def _codes_fit(self) -> CubeDecoderSection:
        _check_width(self.width, self.heads)
        return self


class CubeAutoencoderSection(Section):
    """`model:` an encoder of the visible cubes and a decoder of the hidden ones."""

    encoder: CubeViTSection = CubeViTSection()
    decoder: CubeDecoderSection = CubeDecoderSection()
    freeze: FirstBlocks = 0  # freeze the embeddings and this many first blocks; 0: train all


class CubeTargetSection(Section):
    """`target:` the voxels of each hidden cube."""

    kind: Literal["cubes"] = "cubes"
    normalize: bool  # each cube to zero mean and unit variance


class ScanSwinSection(Swin3DSection):
    """A hierarchical transformer with window attention, of whole crops."""

    view: ClassVar[str] = "scan"

    resolution: Dimension = 96  # voxels a side of a crop
    in_channels: Positive = 1

    @property
    def size(self) -> tuple[int, int, int]:
        """(X, Y, Z) voxels of a crop."""
        return (self.resolution,) * 3


class ScanSwinModelSection(Section):
    """`model:` an encoder of all tokens, with masked tokens replaced, and a decoder."""

    encoder: ScanSwinSection = ScanSwinSection()
    decoder: VolumeDecoderSection = VolumeDecoderSection()
    freeze: FirstBlocks = 0  # freeze the embeddings and this many first blocks; 0: train all


class IntensityTargetSection(Section):
    """`target:` the intensities of masked voxels."""

    kind: Literal["intensity"] = "intensity"
    loss: Literal["l1", "mse"] = "l1"  # mean absolute or squared error


class ScanDataSection(DataSection):
    """`data:` of scans."""

    channels: Literal["native"] = "native"  # one number a voxel
    max_pixels: Positive = 1 << 28  # voxels; refuse larger scans before decoding them


class WindowSection(Section):
    """A fixed range of values, as of Hounsfield units, becomes 0 to 1; others are clipped."""

    kind: Literal["window"] = "window"
    low: float
    high: float

    @model_validator(mode="after")
    def _rises(self) -> WindowSection:
        _check_rise(self.low, self.high)
        return self


class PercentileSection(Section):
    """The range between two percentiles of each scan becomes 0 to 1; others are clipped."""

    kind: Literal["percentiles"] = "percentiles"
    low: Annotated[float, Field(ge=0.0, le=100.0)] = 0.5
    high: Annotated[float, Field(ge=0.0, le=100.0)] = 99.5

    @model_validator(mode="after")
    def _rises(self) -> PercentileSection:
        _check_rise(self.low, self.high)
        return self


class AsStoredSection(Section):
    """Values as they are; `augment.mean` and `augment.std` say what they are like."""

    kind: Literal["none"] = "none"


IntensityRule = Annotated[
    Annotated[WindowSection, Tag("window")]
    | Annotated[PercentileSection, Tag("percentiles")]
    | Annotated[AsStoredSection, Tag("none")],
    by_kind("percentiles"),
]


class ScanAugmentSection(Section):
    """`augment:` which part of a scan becomes a crop, and what its numbers mean."""

    # mm from voxel to voxel, one number or [x, y, z]; scans at another spacing are resampled
    spacing: Millimetres | tuple[Millimetres, Millimetres, Millimetres]
    intensity: IntensityRule = PercentileSection()
    foreground: bool = True  # crops lie in the box around what is no background
    repeats: Positive = 1  # crops of one reading
    flip: Fraction = 0.0  # probability of a mirrored axis, each of the three
    rotate: Fraction = 0.0  # probability of one to three quarter turns about z
    scale_intensity: Fraction = 0.0  # probability of a factor between 0.9 and 1.1
    shift_intensity: Fraction = 0.0  # probability of an addend between -0.1 and 0.1
    mean: tuple[float, ...] = (0.0,)  # mean after the intensity rule
    std: tuple[float, ...] = (1.0,)

    @property
    def millimetres(self) -> tuple[float, float, float]:
        """Spacing along x, y and z."""
        one = self.spacing
        return (one, one, one) if isinstance(one, float | int) else one

    def require_turnable(self, size: tuple[int, int, int]) -> None:
        """Raise a ``ValueError`` if quarter turns would change the shape of crops (X, Y, Z)."""
        x, y, _ = size
        if self.rotate and x != y:
            raise ValueError(
                f"augment.rotate turns crops about z, so {x} x {y} voxels must be a square"
            )
