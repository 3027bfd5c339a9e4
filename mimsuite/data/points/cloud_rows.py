"""Conversion of stored clouds to float32.

Surveyed clouds have coordinates in millions of metres, where adjacent float32 values are half a
metre apart; such clouds are centred first. Depth cameras write NaN for missing points; those rows
are dropped.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mimsuite.data.unused import notice
from mimsuite.errors import CorruptSample

MOST_POINTS = 20_000_000
NOT_FINITE = "points that are not finite"
MOVED = "offsets of clouds far from the origin, which are moved to their mean"
ROUNDED = "digits of coordinates, lost to float32 before"
_MOST_PARTS = 1 << 11  # float16 represents integers up to this exactly
# Limits of (float32 spacing at the largest coordinate) / (extent of the cloud):
_FAR = 1e-5  # at or above this the cloud is centred
_COARSE = 1e-4  # at or above this rounding is visible


@dataclass(frozen=True)
class Rows:
    """A cloud as float32.

    Attributes:
        table: (N, C) float32, coordinates first, all finite.
        left_out: number of rows dropped because they were not finite.
        moved: (3,) float64 offset subtracted from the coordinates; None: not centred.
    """

    table: np.ndarray
    left_out: int = 0
    moved: np.ndarray | None = None


def float32_rows(table: np.ndarray) -> Rows:
    """Convert (N, C) numbers, coordinates first, to float32.

    Raises:
        CorruptSample: kind ``too-large``, or ``decode``: no row is finite.
    """
    if not 0 < len(table) <= MOST_POINTS:
        raise CorruptSample("too-large" if len(table) else "decode", f"{len(table)} points")
    finite = np.isfinite(table).all(axis=1)
    left_out = len(table) - int(finite.sum())
    if left_out:
        table = table[finite]
        if not len(table):
            raise CorruptSample("decode", "coordinates that are not finite")
        notice(NOT_FINITE)
    moved = _offset(table[:, :3])
    if moved is not None:
        notice(MOVED)
        rest = table[:, 3:].astype(np.float32)
        table = np.concatenate([(table[:, :3] - moved).astype(np.float32), rest], axis=1)
    with np.errstate(over="ignore"):
        table = table.astype(np.float32)
    if not np.isfinite(table).all():
        raise CorruptSample("decode", "numbers that are not finite in float32")
    return Rows(table, left_out, moved)


def _offset(points: np.ndarray) -> np.ndarray | None:
    """The mean of (N, 3) coordinates if float32 is too coarse for them, else None."""
    low, high = points.min(axis=0).astype(np.float64), points.max(axis=0).astype(np.float64)
    extent = float((high - low).max())
    largest = max(float(-low.min()), float(high.max()))
    spacing = largest * float(np.finfo(np.float32).eps)
    if not extent > 0 or spacing <= _FAR * extent or not np.isfinite(extent):
        return None
    if spacing >= _COARSE * extent and (points.astype(np.float32) == points).all():
        notice(ROUNDED)
    mean: np.ndarray = points.mean(axis=0, dtype=np.float64)
    return mean


def check_parts(column: np.ndarray) -> None:
    """Refuse a column whose values cannot be part ids.

    Raises:
        CorruptSample: kind ``decode``.
    """
    if not are_parts(column):
        raise CorruptSample("decode", "a last column that is no part's number")


def are_parts(column: np.ndarray) -> bool:
    """Whether (N,) numbers can be part ids; rows that are not finite are dropped later."""
    column = column[np.isfinite(column)]
    return not ((column < 0) | (column >= _MOST_PARTS) | (column % 1 != 0)).any()
