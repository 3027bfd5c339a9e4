"""A folder of DICOM files, one a slice, as one scan; pydicom reads each of them.

Slices are put in order by their position in space, never by their names.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from mimsuite.data.scans.volume import (
    MOST_VOXELS,
    Volume,
    check_finite,
    check_size,
    check_spacing,
    library,
    upright,
)
from mimsuite.errors import CorruptSample

_ENDINGS = (".dcm", ".dicom", ".ima")
_MAGIC = b"DICM"  # at byte 128
_MOST_SLICES = 4096
_UNEVEN = 0.1  # share of a step by which steps between slices may differ
_NEEDED = ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "Rows", "Columns")


def is_slice(path: Path) -> bool:
    """Whether a file is DICOM, by its name or by its first bytes."""
    if path.suffix.lower() in _ENDINGS:
        return True
    if path.suffix and not path.suffix[1:].isdigit():  # names are often numbers with dots
        return False
    try:
        with path.open("rb") as file:
            return file.read(132)[128:] == _MAGIC
    except OSError:
        return False


def slices_in(folder: Path) -> list[Path]:
    """The DICOM files of a folder, not of those below it."""
    return sorted(
        path
        for path in folder.iterdir()
        if path.is_file() and not path.name.startswith(".") and is_slice(path)
    )


def read(folder: Path, most_voxels: int = MOST_VOXELS) -> Volume:
    """Read the series in a folder.

    Raises:
        CorruptSample: slices of several series or kinds, one that is missing or cannot be read.
    """
    paths = slices_in(folder)
    if not 1 <= len(paths) <= _MOST_SLICES:
        raise CorruptSample("too-large", f"{len(paths)} slices; read are up to {_MOST_SLICES}")
    heads = [_read(path, stop_before_pixels=True) for path in paths]
    _check_alike(heads, paths)
    rows, columns = int(heads[0].Rows), int(heads[0].Columns)
    check_size((columns, rows, len(heads)), most_voxels)
    order, step = _order(heads)
    values = np.empty((columns, rows, len(heads)), np.float32)
    for place, number in enumerate(order):
        values[..., place] = _pixels(paths[number], (rows, columns)).T
    check_finite(values)
    stored = heads[0].get("Modality", "DICOM")
    turned, spacing, axes = upright(_as_integers(values), _affine(heads[order[0]], step))
    return Volume(turned, spacing, f"{stored}, {axes}")


def _read(path: Path, **options: Any) -> Any:
    pydicom = library("pydicom")
    try:
        return pydicom.dcmread(path, force=False, **options)
    except Exception as fault:  # it raises several kinds on damaged files
        raise CorruptSample("decode", f"{path.name}: no DICOM file ({_short(fault)})") from None


def _check_alike(heads: list[Any], paths: list[Path]) -> None:
    for head, path in zip(heads, paths, strict=True):
        if int(head.get("NumberOfFrames", 1) or 1) > 1:
            raise CorruptSample(
                "decode", f"{path.name}: many slices in one DICOM file; store it as .nii (dcm2niix)"
            )
        if int(head.get("SamplesPerPixel", 1)) != 1:
            raise CorruptSample("decode", f"{path.name}: a colour picture, and no slice")
        if lacking := [name for name in _NEEDED if head.get(name) in (None, "")]:
            raise CorruptSample("decode", f"{path.name}: no spacing or position: no {lacking[0]}")
        check_spacing([*head.PixelSpacing, 1.0])
    if (series := len({str(head.get("SeriesInstanceUID", "")) for head in heads})) > 1:
        raise CorruptSample(
            "decode", f"slices of {series} series: give each series a folder of its own"
        )
    first = heads[0]
    for head, path in zip(heads, paths, strict=True):
        for name in ("Rows", "Columns", "PixelSpacing", "ImageOrientationPatient"):
            one, other = np.ravel(head.get(name)), np.ravel(first.get(name))
            if one.shape != other.shape or not np.allclose(
                one.astype(float), other.astype(float), rtol=1e-3, atol=1e-3
            ):
                raise CorruptSample(
                    "decode",
                    f"{path.name}: another {name} than {paths[0].name}: no slice of one scan",
                )


def _order(heads: list[Any]) -> tuple[list[int], np.ndarray]:
    """The slices from one end to the other, and the (3,) step between two in mm."""
    turn = _vector(heads[0], "ImageOrientationPatient", 6)
    normal = np.cross(turn[:3], turn[3:])
    places = np.stack([_vector(head, "ImagePositionPatient", 3) for head in heads])
    along = places @ normal
    order = np.argsort(along, kind="stable")
    if len(heads) == 1:
        thickness = check_spacing([1.0, 1.0, heads[0].get("SliceThickness") or 0.0])[2]
        return [0], normal * thickness
    gaps = np.diff(along[order])
    step = float(np.median(gaps))
    if gaps.min() < 1e-3:
        raise CorruptSample("decode", "two slices at one place: give each series its own folder")
    if (wrong := np.flatnonzero(np.abs(gaps - step) > _UNEVEN * step)).size:
        at = int(wrong[0])
        raise CorruptSample(
            "decode",
            f"missing slices: {gaps[at]:.4g} mm between slices {at + 1} and {at + 2} of "
            f"{len(heads)}, and {step:.4g} mm between others",
        )
    return order.tolist(), (places[order[-1]] - places[order[0]]) / (len(heads) - 1)


def _vector(head: Any, name: str, length: int) -> np.ndarray:
    found = np.array([float(number) for number in head.get(name)])
    if found.shape != (length,) or not np.isfinite(found).all():
        raise CorruptSample("decode", f"its {name} is not {length} numbers")
    return found


def _affine(head: Any, step: np.ndarray) -> np.ndarray:
    """(4, 4) from (column, row, slice) to mm in RAS+; DICOM's axes go to the left and the back."""
    turn = _vector(head, "ImageOrientationPatient", 6)
    down, right = (float(size) for size in head.PixelSpacing)
    affine = np.eye(4)
    affine[:3, 0], affine[:3, 1], affine[:3, 2] = turn[:3] * right, turn[3:] * down, step
    affine[:3, 3] = _vector(head, "ImagePositionPatient", 3)
    affine[:2] *= -1
    return affine


def _pixels(path: Path, shape: tuple[int, int]) -> np.ndarray:
    """(rows, columns) float32, scaled as the file says."""
    data = _read(path)
    try:
        pixels = np.asarray(data.pixel_array)
    except Exception as fault:  # damage, or a compression whose library is not installed
        raise CorruptSample("decode", f"{path.name}: {_short(fault)}") from None
    if pixels.shape != shape:
        raise CorruptSample("decode", f"{path.name}: pixels of {pixels.shape}, announced {shape}")
    slope, intercept = data.get("RescaleSlope", 1), data.get("RescaleIntercept", 0)
    return pixels.astype(np.float32) * np.float32(slope) + np.float32(intercept)


def _as_integers(values: np.ndarray) -> np.ndarray:
    """int16 where that loses nothing, as in CT."""
    whole = values.astype(np.int16) if np.abs(values).max() < 32767 else values
    return whole if np.array_equal(whole, values) else values


def _short(fault: Exception) -> str:
    return f"{type(fault).__name__}: {' '.join(str(fault).split())[:120]}"
