"""Scans as raw rows of float32: x, y, z and measurements (KITTI: 4 numbers per row, nuScenes: 5).

Such a file has no magic number, so all its numbers must be plausible metres. Other data, read as
float32, spreads over all magnitudes.
"""

from __future__ import annotations

import numpy as np

from mimsuite.data.unused import notice

_FARTHEST, _FINEST = 1e5, 1e-12  # plausible magnitudes of coordinates and measurements
_MEASURES = {4: "reflectance", 5: "reflectance and ring"}


def are_float_rows(data: bytes) -> bool:
    """Whether all bytes are rows of 4 or 5 plausible numbers."""
    return b"\0" in data[: 1 << 16] and _rows(data) is not None


def read_float_rows(data: bytes) -> dict[str, np.ndarray]:
    """(N, 3) float32 ``points``; the measurements are dropped and reported as unused."""
    rows = _rows(data)
    assert rows is not None
    notice(f"{_MEASURES[rows.shape[1]]} of scans")
    return {"points": rows[:, :3]}


def _rows(data: bytes) -> np.ndarray | None:
    """(N, 4) or (N, 5) float32; None if the bytes are no scan."""
    if len(data) % 4 or len(data) < 160:
        return None
    numbers = np.frombuffer(data, "<f4")
    with np.errstate(invalid="ignore"):
        sizes = np.abs(numbers)
        plain = np.isnan(numbers) | (sizes == 0) | ((sizes > _FINEST) & (sizes < _FARTHEST))
    if not plain.all():
        return None
    for width in (5, 4):
        if len(numbers) % width == 0 and _is_scan(rows := numbers.reshape(-1, width)):
            return rows
    return None


def _is_scan(rows: np.ndarray) -> bool:
    """Whether coordinates vary, reflectances are in 0 ... 255, and ring numbers are integers."""
    rows = rows[np.isfinite(rows).all(axis=1)]
    if not len(rows) or (rows[:, :3] == rows[0, :3]).all():
        return False
    measured = bool(rows[:, 3].min() >= 0 and rows[:, 3].max() <= 255)
    rings = rows[:, 4] if rows.shape[1] == 5 else rows[:0, 0]
    return measured and bool(((rings >= 0) & (rings < 256) & (rings % 1 == 0)).all())
