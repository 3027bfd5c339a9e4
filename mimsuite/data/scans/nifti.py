"""NIfTI files, ``.nii`` and ``.nii.gz``: the header first, and only as many bytes as it may claim.

nibabel reads the header; https://nifti.nimh.nih.gov describes the format.
"""

from __future__ import annotations

import gzip
import io
import zlib
from typing import Any, BinaryIO, cast

import numpy as np

from mimsuite.data.local_file import Stored, opened
from mimsuite.data.scans.volume import (
    MOST_VOXELS,
    Volume,
    check_finite,
    check_size,
    check_spacing,
    library,
    upright,
)
from mimsuite.data.unused import notice
from mimsuite.errors import CorruptSample

ENDINGS = (".nii", ".nii.gz")
_GZIP = b"\x1f\x8b"
_HEADS = {348: "Nifti1Header", 540: "Nifti2Header"}  # by their size in bytes
_SINGLE = (b"n+1", b"n+2")  # header and voxels in one file
_FURTHEST = 1 << 24  # bytes in front of the voxels
_NO_ORIENTATION = "orientations, which headers do not give: axes count as right, front, head"


def read(data: Stored, most_voxels: int = MOST_VOXELS) -> Volume:
    """Read a scan.

    Raises:
        CorruptSample: kind ``truncated``, ``decode``, ``not-finite`` or ``too-large``.
    """
    with opened(data) as file:
        zipped = file.read(2) == _GZIP
        file.seek(0)
        stream = cast(BinaryIO, gzip.GzipFile(fileobj=file)) if zipped else file
        try:
            return _read(stream, most_voxels)
        except EOFError:
            raise CorruptSample("truncated", "its gzip data ends too early") from None
        except (OSError, zlib.error) as fault:
            raise CorruptSample("decode", f"its gzip data is damaged ({fault})") from None


def _read(stream: BinaryIO, most_voxels: int) -> Volume:
    start = _exactly(stream, 348)
    header, start = _header(stream, start)
    shape, dtype = _shape(header), _dtype(header)
    check_size(shape, most_voxels)
    check_spacing([float(size) for size in header["pixdim"][1:4]])
    offset = int(header["vox_offset"])
    if not len(start) <= offset <= _FURTHEST:
        raise CorruptSample("decode", f"its voxels cannot begin at byte {offset}")
    _exactly(stream, offset - len(start))
    content = _exactly(stream, int(np.prod(shape)) * dtype.itemsize)
    stream.read(1)  # the checksum of gzip data is compared at its end
    values = np.frombuffer(content, dtype).reshape(shape, order="F")
    slope, intercept = header.get_slope_inter()
    if slope is not None and (slope, intercept) != (1.0, 0.0):
        values = values * np.float32(slope) + np.float32(intercept)
    if values.dtype.kind == "f":
        values = values.astype(np.float32, copy=False)
    check_finite(values)
    if not (header["qform_code"] or header["sform_code"]):
        notice(_NO_ORIENTATION)
        affine = np.diag([*map(float, header["pixdim"][1:4]), 1.0])
    else:
        affine = header.get_best_affine()
    values = values.astype(values.dtype.newbyteorder("="), copy=False)
    turned, spacing, axes = upright(values, affine)
    return Volume(turned, spacing, f"{dtype.name}, {axes}")


def _header(stream: BinaryIO, start: bytes) -> tuple[Any, bytes]:
    """The header, and all bytes that were read for it."""
    size = next((n for n in _HEADS for order in ("little", "big") if _int(start, order) == n), 0)
    if not size:
        raise CorruptSample("decode", "no NIfTI header")
    start += _exactly(stream, size - len(start))
    nibabel = library("nibabel")
    try:
        header = getattr(nibabel, _HEADS[size])(start, check=False)
    except Exception as fault:  # it raises several kinds on damaged headers
        raise CorruptSample("decode", f"no NIfTI header ({fault})") from None
    if bytes(header["magic"])[:3] not in _SINGLE:
        raise CorruptSample("decode", "its voxels are in another file (.img): store it as .nii")
    return header, start


def _shape(header: Any) -> tuple[int, int, int]:
    count = int(header["dim"][0])
    if not 1 <= count <= 7:
        raise CorruptSample("decode", f"a NIfTI header of {count} dimensions")
    shape = [int(side) for side in header["dim"][1 : count + 1]]
    while len(shape) > 3 and shape[-1] == 1:
        shape.pop()
    if len(shape) > 3:
        raise CorruptSample(
            "decode",
            f"a series of {np.prod(shape[3:], dtype=object)} volumes (4-D) where one is meant: "
            "store each as a file (nibabel.four_to_three)",
        )
    if len(shape) < 3:
        raise CorruptSample("decode", f"{len(shape)} dimensions where a volume has 3")
    return shape[0], shape[1], shape[2]


def _dtype(header: Any) -> np.dtype:
    try:
        dtype: np.dtype = np.dtype(header.get_data_dtype())
    except Exception as fault:  # an unknown code
        raise CorruptSample("decode", f"voxels of a type that is not read ({fault})") from None
    if dtype.kind not in "iuf" or dtype.itemsize > 8:
        raise CorruptSample("decode", f"voxels of {dtype}: read are integers and floats")
    return dtype


def _int(start: bytes, order: Any) -> int:
    return int.from_bytes(start[:4], order)


def _exactly(stream: BinaryIO, size: int) -> bytes:
    found = io.BytesIO()
    while (left := size - found.tell()) > 0:
        if not (part := stream.read(min(left, 1 << 24))):
            raise CorruptSample("truncated", "the file ends before the voxels that it announces")
        found.write(part)
    return found.getvalue()
