"""LAS and LAZ files of laser scanners, read by laspy."""

from __future__ import annotations

import io
from typing import Any

import numpy as np

from mimsuite.data.points.cloud_rows import MOST_POINTS
from mimsuite.data.points.text_clouds import unit_colours
from mimsuite.data.unused import notice
from mimsuite.errors import CorruptSample, UserError

_COLOURS = ("red", "green", "blue")


def read_las(data: bytes) -> dict[str, np.ndarray]:
    """Columns (N, 3) ``points`` float64, and ``colors`` in 0 ... 1 if the file has any.

    Other dimensions are dropped; those that are not all zero are reported as unused.

    Raises:
        CorruptSample: kind ``decode``, ``truncated`` or ``too-large``.
        UserError: laspy is not installed.
    """
    laspy = _laspy()
    with laspy.open(io.BytesIO(data)) as file:
        count = int(file.header.point_count)
        if count > MOST_POINTS:
            raise CorruptSample("too-large", f"the header claims {count} points")
        record = file.read()
    if len(record.points) != count or not count:
        raise CorruptSample("truncated", f"{len(record.points)} of {count} points are there")
    found = {"points": np.asarray(record.xyz, dtype=np.float64)}
    names = list(record.point_format.dimension_names)
    if all(name in names for name in _COLOURS):
        colours = np.stack([np.asarray(record[name]) for name in _COLOURS], axis=1)
        if colours.any():
            found["colors"] = unit_colours(colours.astype(np.float64))
    other = [
        name
        for name in names
        if name not in ("X", "Y", "Z", *_COLOURS) and np.asarray(record[name]).any()
    ]
    if other:
        notice(f"dimensions of LAS points: {', '.join(other)}")
    return found


def _laspy() -> Any:
    try:
        import laspy
    except ImportError:
        raise UserError("LAS files need laspy: pip install 'mimsuite[las]'") from None
    return laspy
