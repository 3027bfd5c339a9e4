"""The 95th percentile of the distances between the surfaces of two masks, in millimetres.

The surface of a mask is its voxels with a face neighbour outside; what lies beyond the volume is
outside. Distances are from centre to centre of voxels.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mimsuite.data.scans.volume import library


def hd95(found: np.ndarray, true: np.ndarray, spacing: Sequence[float]) -> float:
    """The larger of the two directed 95th percentiles; NaN if either mask is empty.

    Args:
        found, true: (X, Y, Z) bool.
        spacing: millimetres from voxel to voxel along each axis.
    """
    if not (found.any() and true.any()):
        return float("nan")
    spot = _box(found | true)
    found, true = found[spot], true[spot]
    edges = surface(found), surface(true)
    distance = library("scipy.ndimage").distance_transform_edt
    directed = [
        np.percentile(distance(~there, sampling=tuple(spacing))[here], 95)
        for here, there in (edges, edges[::-1])
    ]
    return float(max(directed))


def surface(mask: np.ndarray) -> np.ndarray:
    """(X, Y, Z) bool: the voxels of a mask with a face neighbour outside."""
    inside: np.ndarray = library("scipy.ndimage").binary_erosion(mask)
    return mask & ~inside


def _box(mask: np.ndarray) -> tuple[slice, ...]:
    """The box around a mask; voxels outside it are on no surface."""
    spans = []
    for axis in range(3):
        others = tuple(other for other in range(3) if other != axis)
        places = np.flatnonzero(mask.any(axis=others))
        spans.append(slice(int(places[0]), int(places[-1]) + 1))
    return tuple(spans)
