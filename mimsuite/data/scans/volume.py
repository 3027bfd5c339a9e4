"""A scan in memory: voxels along right, anterior and superior, and millimetres between them.

Letters: (X, Y, Z) voxels; x grows to the patient's right, y to the front, z to the head (RAS+).
Nothing here imports torch: it runs in the child process that decodes files, too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np

from mimsuite.errors import CorruptSample, UserError

MOST_VOXELS = 1 << 28  # limit of voxels per scan, before and after resampling
LONGEST_SIDE = 4096  # voxels
Spacing = tuple[float, float, float]
_SAME = 1e-3  # relative difference of spacings that count as equal
_LOOKED_AT = 1 << 20  # voxels, evenly spread, that percentiles are taken of
_BINS = 256


@dataclass(frozen=True)
class Volume:
    """A scan.

    Attributes:
        values: (X, Y, Z), of the type that the file has; float32 where the file scales its numbers.
        spacing: millimetres from voxel to voxel along each axis.
        stored: how the file has it, for people: type and directions of its axes.
    """

    values: np.ndarray
    spacing: Spacing
    stored: str = ""


@dataclass(frozen=True)
class Summary:
    """What cropping and scaling must know of all of a scan.

    Attributes:
        percentiles: (201,) values below which 0, 0.5 ... 100 % of the voxels lie.
        low, high: (3,) first voxel of the foreground along each axis, and the one behind its last.
    """

    percentiles: np.ndarray
    low: tuple[int, int, int]
    high: tuple[int, int, int]

    def percentile(self, percent: float) -> float:
        """The value below which this percentage of the voxels lies."""
        return float(np.interp(percent, np.linspace(0, 100, 201), self.percentiles))


def library(name: str) -> Any:
    """An optional library for scans.

    Raises:
        UserError: it is not installed.
    """
    try:
        return import_module(name)
    except ModuleNotFoundError:
        top = name.partition(".")[0]
        raise UserError(f"scans need {top}: pip install 'mimsuite[scan]'") from None


def check_size(shape: Sequence[int], most_voxels: int) -> None:
    """Raise a ``CorruptSample`` for a scan too large, or with an empty side."""
    if not all(1 <= side <= LONGEST_SIDE for side in shape):
        raise CorruptSample("too-large", f"sides of {_times(shape)} voxels: 1 to {LONGEST_SIDE}")
    if int(np.prod(shape, dtype=object)) > most_voxels:
        raise CorruptSample("too-large", f"{_times(shape)} voxels are more than {most_voxels}")


def check_spacing(spacing: Sequence[float]) -> Spacing:
    """Three positive, finite millimetres; raises CorruptSample."""
    found = tuple(float(one) for one in spacing)
    if len(found) != 3 or not all(np.isfinite(one) and one > 0 for one in found):
        raise CorruptSample("decode", "its header gives no spacing of the voxels in mm")
    return found[0], found[1], found[2]


def check_finite(values: np.ndarray) -> None:
    """Raise a ``CorruptSample`` for voxels that are no numbers."""
    if values.dtype.kind == "f" and (wrong := int(values.size - np.isfinite(values).sum())):
        raise CorruptSample("not-finite", f"{wrong} of {values.size} voxels are no finite numbers")


def upright(values: np.ndarray, affine: np.ndarray) -> tuple[np.ndarray, Spacing, str]:
    """Axes put in the order right, anterior, superior, by the direction that each is closest to.

    Nothing is interpolated: an oblique scan stays oblique.

    Args:
        values: (A, B, C) as stored.
        affine: (4, 4) from voxels to millimetres in RAS+.

    Returns:
        (X, Y, Z) values, the spacing of their axes, and the directions that the axes had.

    Raises:
        CorruptSample: an affine without a direction for some axis.
    """
    orientations = library("nibabel.orientations")
    found = orientations.io_orientation(affine)
    if np.isnan(found).any():
        raise CorruptSample("decode", "its header gives some axis no direction")
    sizes = np.sqrt((affine[:3, :3].astype(np.float64) ** 2).sum(axis=0))
    spacing = [0.0, 0.0, 0.0]
    for axis, size in zip(found[:, 0].astype(int), sizes, strict=True):
        spacing[axis] = float(size)
    turned = orientations.apply_orientation(values, found)
    return turned, check_spacing(spacing), "".join(orientations.ornt2axcodes(found))


def same_spacing(one: Spacing, other: Spacing) -> bool:
    """Whether resampling from one to the other would change nothing to speak of."""
    return bool(np.allclose(one, other, rtol=_SAME, atol=0))


def resampled(
    volume: Volume, spacing: Spacing, most_voxels: int = MOST_VOXELS, *, nearest: bool = False
) -> Volume:
    """Trilinear, without smoothing; the centre of the first voxel stays where it is.

    Args:
        nearest: take the value of the nearest voxel, for classes, and keep its type.

    Returns:
        float32 values, or the volume itself where the spacing is the same.

    Raises:
        CorruptSample: the result would be too large.
    """
    if same_spacing(volume.spacing, spacing):
        return volume
    ndimage = library("scipy.ndimage")
    steps = [new / old for new, old in zip(spacing, volume.spacing, strict=True)]
    shape = [
        max(1, round((side - 1) / step) + 1)
        for side, step in zip(volume.values.shape, steps, strict=True)
    ]
    check_size(shape, most_voxels)
    values = ndimage.affine_transform(
        volume.values,
        steps,
        output_shape=tuple(shape),
        output=volume.values.dtype if nearest else np.float32,
        order=0 if nearest else 1,
        mode="nearest",
    )
    return Volume(values, spacing, volume.stored)


def summary_of(values: np.ndarray) -> Summary:
    """Percentiles, and the box around the foreground: what is above Otsu's threshold (IEEE
    Transactions on Systems, Man, and Cybernetics 9, 1979)."""
    step = max(1, values.size // _LOOKED_AT)
    seen = values.reshape(-1)[::step].astype(np.float32)
    percentiles = np.percentile(seen, np.linspace(0, 100, 201)).astype(np.float32)
    inside = values > _otsu(np.clip(seen, percentiles[1], percentiles[-2]))
    low, high = [0, 0, 0], list(values.shape)
    for axis in range(3):
        others = tuple(other for other in range(3) if other != axis)
        found = np.flatnonzero(inside.any(axis=others))
        if len(found):
            low[axis], high[axis] = int(found[0]), int(found[-1]) + 1
    return Summary(percentiles, (low[0], low[1], low[2]), (high[0], high[1], high[2]))


def _otsu(values: np.ndarray) -> float:
    """The threshold between two classes of the greatest variance between them."""
    counts, edges = np.histogram(values, _BINS)
    centres = (edges[:-1] + edges[1:]) / 2
    below, total = np.cumsum(counts), counts.sum()
    sums = np.cumsum(counts * centres)
    above = total - below
    with np.errstate(divide="ignore", invalid="ignore"):
        apart = below * above * (sums / below - (sums[-1] - sums) / above) ** 2
    return float(
        edges[1:][np.nan_to_num(apart, nan=-1.0).argmax()]
    )  # a single value: all voxels lie below


def _times(sides: Sequence[int]) -> str:
    return " x ".join(map(str, sides))
