"""Scans as files: figures, the packed form, a picture of three slices.

Runs in a child process and imports no torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mimsuite.data.local_file import LocalFile, Stored, opened, reader
from mimsuite.data.scans import dicom, nifti
from mimsuite.data.scans.packed import DTYPES, MAGIC, open_packed, pack
from mimsuite.data.scans.volume import (
    MOST_VOXELS,
    Volume,
    check_finite,
    check_spacing,
    resampled,
    summary_of,
)
from mimsuite.errors import UserError

_TILE = 84  # pixels a side of each of the three slices


def read(data: Stored, most_voxels: int = MOST_VOXELS) -> Volume:
    """Any scan, RAS+, at its own spacing; raises CorruptSample."""
    if isinstance(data, LocalFile) and Path(data.path).is_dir():
        return dicom.read(Path(data.path), most_voxels)
    if not is_packed(data):
        return nifti.read(data, most_voxels)
    packed = open_packed(reader(data), most_voxels)
    values = packed.crop((0, 0, 0), packed.shape)
    check_finite(values)
    stored = packed.stored or f"packed {packed.dtype.name}"
    return Volume(values.astype(packed.dtype.newbyteorder("=")), packed.spacing, stored)


def is_packed(data: Stored) -> bool:
    """Whether a file is in the packed form."""
    with opened(data) as file:
        return file.read(len(MAGIC)) == MAGIC


def facts(data: Stored) -> dict[str, int | float | str]:
    """Voxels and millimetres along each axis, values, type and directions of axes as stored."""
    volume = read(data)
    summary = summary_of(volume.values)
    sides = zip("xyz", volume.values.shape, strict=True)
    spacing = zip("xyz", volume.spacing, strict=True)
    return {
        **{name: side for name, side in sides},
        **{f"mm {name}": round(step, 4) for name, step in spacing},
        "lowest": round(summary.percentile(0.5), 4),
        "middle": round(summary.percentile(50), 4),
        "highest": round(summary.percentile(99.5), 4),
        "stored": volume.stored,
    }


def store(
    data: Stored, spacing: Sequence[float] | None = None, voxels: str | None = None
) -> tuple[str, bytes]:
    """The packed form.

    Args:
        spacing: mm along x, y and z; zeros: the scan's own.
        voxels: the type of values; None: int16 where they are integers that fit, else float32.

    Raises:
        CorruptSample: the scan cannot be read, or its values do not fit.
        UserError: no spacing is given, or it is none.
    """
    if spacing is None:
        raise UserError(
            "--spacing says at how many mm scans are packed: one number, or three as 1.5,1.5,2 for "
            "right, front and head; `keep` leaves each scan as it is"
        )
    volume = read(data)
    whole = volume.values.dtype.kind in "iu" and np.abs(volume.values).max() <= 32767
    if any(spacing):
        volume = resampled(volume, check_spacing(spacing))
    dtype = voxels or ("int16" if whole else "float32")
    if dtype not in DTYPES:
        raise UserError(f"--voxels {voxels}: it is one of {', '.join(DTYPES)}")
    return "scan", pack(volume, dtype)


def picture(data: Stored) -> np.ndarray:
    """(84, 252, 3) uint8: the middle slices from above, from the front and from the side."""
    volume = read(data)
    summary = summary_of(volume.values)
    low, high = summary.percentile(0.5), summary.percentile(99.5)
    shown = [
        _fit(plane.astype(np.float32), steps, low, high)
        for plane, steps in _planes(volume.values, volume.spacing)
    ]
    return np.repeat(np.concatenate(shown, axis=1)[..., None], 3, axis=2)


def _planes(
    values: np.ndarray, spacing: Sequence[float]
) -> list[tuple[np.ndarray, tuple[float, float]]]:
    """(columns, rows) of each slice, and mm along them."""
    x, y, z = (side // 2 for side in values.shape)
    mm = spacing
    return [
        (values[:, :, z], (mm[0], mm[1])),
        (values[:, y, :], (mm[0], mm[2])),
        (values[x, :, :], (mm[1], mm[2])),
    ]


def _fit(plane: np.ndarray, steps: tuple[float, float], low: float, high: float) -> np.ndarray:
    """(84, 84) uint8 as large as the tile allows, in true proportions, the head upwards."""
    from PIL import Image

    grey = np.clip((plane - low) / max(high - low, 1e-12), 0, 1)
    pixels = Image.fromarray((grey.T[::-1] * 255).round().astype(np.uint8))
    sides = [side * step for side, step in zip(pixels.size, steps, strict=True)]
    scale = (_TILE - 4) / max(sides)
    width, height = (max(1, round(side * scale)) for side in sides)
    tile = Image.new("L", (_TILE, _TILE))
    small = pixels.resize((width, height), Image.Resampling.BILINEAR)
    tile.paste(small, ((_TILE - width) // 2, (_TILE - height) // 2))
    return np.asarray(tile)
