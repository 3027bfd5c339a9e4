"""Furniture meshes, reconstructed from the point clouds that come with the suite.

A cloud is counted into a grid, blurred, and meshed at an iso-level (Lorensen & Cline, "Marching
Cubes", SIGGRAPH 1987, by scikit-image). Thin parts grow to about two cells, and small gaps close.
The split of objects into train and test is fixed; it does not depend on the seed of the scenes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import as_file, files

import numpy as np

from mimsuite.errors import UserError
from mimsuite.noise import keyed_rng

# Class name -> its largest extent in metres.
CLASSES = {
    "appliance": 1.0,
    "bed": 2.1,
    "cabinet": 1.5,
    "lamp": 1.3,
    "plant": 1.2,
    "seat": 1.0,
    "sofa": 1.9,
    "table": 1.3,
}
_TEST_SHARE = 0.25  # share of a class's objects used for testing
_SIZE_SPREAD = 0.15  # largest relative deviation of an object from its class's size
_CELLS, _MARGIN = 36, 4  # cells per side, and how many of them stay empty
_BLUR = 0.9  # standard deviation, in cells
_LEVEL = 0.12


@dataclass(frozen=True)
class CatalogueObject:
    """An object of the catalogues.

    Attributes:
        row: its row in ``furniture820_points2048.npz``.
        kind: one of :data:`CLASSES`.
        vertices: (V, 3) metres, z up; the object stands on z = 0, centred on the z axis.
        faces: (F, 3) int64.
        credit: its name, library, creator and licence.
    """

    row: int
    kind: str
    vertices: np.ndarray
    faces: np.ndarray
    credit: dict[str, str]

    @property
    def reach(self) -> float:
        """Distance in metres from the z axis to the farthest point."""
        return float(np.hypot(self.vertices[:, 0], self.vertices[:, 1]).max())

    @property
    def height(self) -> float:
        """Height in metres."""
        return float(self.vertices[:, 2].max())


@lru_cache(maxsize=1)
def catalogue() -> dict[str, dict[str, list[CatalogueObject]]]:
    """Split (``train``, ``test``) -> class -> objects; no object is in both.

    Raises:
        UserError: scikit-image is not installed.
    """
    place = files("mimsuite.data") / "embedded" / "furniture820_points2048.npz"
    with as_file(place) as path, np.load(path, allow_pickle=False) as stored:
        arrays = {name: stored[name] for name in stored.files}
    found: dict[str, dict[str, list[CatalogueObject]]] = {"train": {}, "test": {}}
    for kind in CLASSES:
        rows = np.flatnonzero(arrays["label"] == kind)
        rows = keyed_rng("catalogue split", kind).permutation(rows)
        tested = round(_TEST_SHARE * len(rows))
        for split, part in (("test", rows[:tested]), ("train", rows[tested:])):
            found[split][kind] = [_object(arrays, int(row), kind) for row in np.sort(part)]
    return found


def credits_of(objects: Sequence[CatalogueObject]) -> list[dict[str, str | int]]:
    """Author and licence of each object."""
    return [{"row": one.row, "class": one.kind, **one.credit} for one in objects]


def _object(arrays: dict[str, np.ndarray], row: int, kind: str) -> CatalogueObject:
    vertices, faces = _surface(arrays["points"][row].astype(np.float64))
    vertices = vertices[:, [0, 2, 1]] * [1.0, -1.0, 1.0]  # y up -> z up, right-handed
    low, high = vertices.min(0), vertices.max(0)
    spread = keyed_rng("catalogue size", row).uniform(1 - _SIZE_SPREAD, 1 + _SIZE_SPREAD)
    vertices -= [(low[0] + high[0]) / 2, (low[1] + high[1]) / 2, low[2]]
    vertices *= CLASSES[kind] * spread / (high - low).max()
    words = ("name", "library", "creator", "licence")
    return CatalogueObject(
        row, kind, vertices, faces, {word: str(arrays[word][row]) for word in words}
    )


def _surface(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Vertices (V, 3) and faces (F, 3) around (P, 3) points in the unit sphere."""
    try:
        from scipy.ndimage import gaussian_filter
        from skimage.measure import marching_cubes
    except ImportError as fault:
        raise UserError(
            f"scenes need scikit-image ({fault}): pip install 'mimsuite[scenes]'"
        ) from None
    inner = _CELLS - 1 - 2 * _MARGIN
    cells = np.zeros((_CELLS,) * 3)
    at = np.round((points + 1) / 2 * inner + _MARGIN).astype(int)
    cells[tuple(at.T)] = 1
    vertices, faces, _, _ = marching_cubes(gaussian_filter(cells, _BLUR), _LEVEL)
    return (vertices.astype(np.float64) - _MARGIN) / inner * 2 - 1, faces.astype(np.int64)
