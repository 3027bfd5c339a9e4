"""Radiance grid files: ``.npz`` with ``rgbsigma``, the format of NeRF-RPN and NeRF-MAE.

``rgbsigma`` is (X, Y, Z, 4), or flat (X * Y * Z, 4) with x running fastest and an array
``resolution`` = (X, Y, Z); the last channel is density. ``density_kind`` is ``log``, ``linear`` or
``alpha``. Optional labels: ``boxes`` (G, 7) or (G, 6) in voxels, and ``labels`` (X, Y, Z), a class
for every voxel, 0 = unlabelled.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from mimsuite.data.array_files import read_npz
from mimsuite.errors import CorruptSample

MOST_BYTES = 1 << 29  # limit of all arrays of a file
LONGEST_SIDE = 512  # voxels
_KINDS = "fiubU"
_TYPES = ("uint8", "float16", "float32")
_DENSITIES = ("log", "linear", "alpha")
_MOST_LABELS = 255
_STEP = 0.01  # ``delta`` for pictures of files that do not give it
_TILE = 96
_CUT = 0.2  # share of the depth that is cut away in pictures


class StoredGrid(NamedTuple):
    """A file's content; None: not in the file.

    Attributes:
        values: (X, Y, Z, 4) as stored.
        density_kind: meaning of the last channel.
        delta: ray step of the alpha formula.
        boxes: (G, 7) float32: centre, sides, yaw about z in radians; voxel i covers i to i + 1.
        labels: (X, Y, Z) uint8.
    """

    values: np.ndarray
    density_kind: str | None
    delta: float | None
    boxes: np.ndarray | None
    labels: np.ndarray | None


def read(data: bytes) -> StoredGrid:
    """Read a scene.

    Raises:
        CorruptSample: kind ``too-large`` or ``decode``.
    """
    arrays = read_npz(data, _KINDS, MOST_BYTES)
    delta = float(arrays["delta"]) if "delta" in arrays and arrays["delta"].size == 1 else None
    grid = _grid(arrays)
    labels = _labels(arrays, grid.shape[:3])
    return StoredGrid(grid, _density_kind(arrays), delta, _boxes(arrays), labels)


def facts(data: bytes) -> dict[str, int | float | str]:
    """Sides in voxels, share of occupied voxels, dtype and kind of density."""
    arrays = read_npz(data, _KINDS, MOST_BYTES)
    grid = _grid(arrays)
    _boxes(arrays), _labels(arrays, grid.shape[:3])  # raises if they are invalid
    return {
        "x": grid.shape[0],
        "y": grid.shape[1],
        "z": grid.shape[2],
        "occupied": round(float((_alpha(grid, arrays) > 0.01).mean()), 4),
        "channels": f"4 x {grid.dtype}",
        "density": _density_kind(arrays) or "not said",
    }


def store(data: bytes) -> tuple[str, bytes]:
    """Read the whole file to check it, then return it unchanged."""
    facts(data)
    return "npz", data


def picture(data: bytes) -> np.ndarray:
    """(96, 192, 3) uint8: views along y and from above, with the nearest fifth cut away."""
    arrays = read_npz(data, _KINDS, MOST_BYTES)
    grid = _grid(arrays)
    alpha = _alpha(grid, arrays)
    top = 255.0 if grid.dtype == np.uint8 else 1.0
    colour = np.clip(np.nan_to_num(grid[..., :3].astype(np.float32) / top), 0, 1)
    views = [_from_end(colour, alpha, axis) for axis in (1, 2)]
    return np.concatenate([_fit(view) for view in views], axis=1)


def _grid(arrays: dict[str, np.ndarray]) -> np.ndarray:
    """(X, Y, Z, 4) from either way of storing."""
    if "rgbsigma" not in arrays:
        names = ", ".join(list(arrays)[:8]) or "nothing"
        raise CorruptSample("decode", f"no array 'rgbsigma' in it; it has {names}")
    grid = arrays["rgbsigma"]
    if grid.dtype.name not in _TYPES:
        raise CorruptSample("decode", f"rgbsigma of {grid.dtype}; known are {', '.join(_TYPES)}")
    sides = [int(side) for side in np.ravel(arrays.get("resolution", []))]
    if grid.ndim == 2 and grid.shape[1] == 4:
        if len(sides) != 3 or np.prod(sides, dtype=object) != len(grid):
            raise CorruptSample(
                "decode", f"a flat grid of {len(grid)} voxels, but its resolution is {sides}"
            )
        grid = grid.reshape(*reversed(sides), 4).transpose(2, 1, 0, 3)
    if grid.ndim != 4 or grid.shape[3] != 4 or 0 in grid.shape:
        raise CorruptSample("decode", f"rgbsigma of shape {grid.shape} is no (X, Y, Z, 4) grid")
    if max(grid.shape) > LONGEST_SIDE:
        raise CorruptSample("too-large", f"a side of {max(grid.shape)} voxels is too long")
    if len(sides) == 3 and list(grid.shape[:3]) != sides:
        raise CorruptSample("decode", f"a grid of {grid.shape[:3]}, but its resolution is {sides}")
    if np.isnan(grid.astype(np.float32, copy=False)).any():
        raise CorruptSample("decode", "not-a-number among its values")
    return grid


def _boxes(arrays: dict[str, np.ndarray]) -> np.ndarray | None:
    """(G, 7) from stored (G, 7), or from (G, 6) lower and upper corners."""
    if "boxes" not in arrays:
        return None
    boxes = arrays["boxes"]
    if boxes.ndim != 2 or boxes.shape[1] not in (6, 7) or boxes.dtype.kind not in "fiu":
        raise CorruptSample("decode", f"boxes of shape {boxes.shape}; known are (G, 6) and (G, 7)")
    boxes = boxes.astype(np.float32)
    if boxes.shape[1] == 6:
        low, high = boxes[:, :3], boxes[:, 3:]
        boxes = np.concatenate([(low + high) / 2, high - low, np.zeros((len(boxes), 1))], axis=1)
    if not np.isfinite(boxes).all() or (boxes[:, 3:6] <= 0).any():
        raise CorruptSample("decode", "boxes that are not finite, or have a side of 0 or less")
    return boxes.astype(np.float32)


def _labels(arrays: dict[str, np.ndarray], sides: tuple[int, ...]) -> np.ndarray | None:
    if "labels" not in arrays:
        return None
    labels = arrays["labels"]
    if labels.shape != sides or labels.dtype.kind not in "iu":
        raise CorruptSample(
            "decode", f"labels of shape {labels.shape} and {labels.dtype} in a grid of {sides}"
        )
    if labels.min() < 0 or labels.max() > _MOST_LABELS:
        raise CorruptSample("decode", f"labels outside of 0 to {_MOST_LABELS}")
    return labels.astype(np.uint8)


def _density_kind(arrays: dict[str, np.ndarray]) -> str | None:
    kind = str(arrays["density_kind"]) if "density_kind" in arrays else None
    if kind is not None and kind not in _DENSITIES:
        raise CorruptSample("decode", f"density_kind '{kind}'; known are {', '.join(_DENSITIES)}")
    return kind


def _alpha(grid: np.ndarray, arrays: dict[str, np.ndarray]) -> np.ndarray:
    """(X, Y, Z) opacity in [0, 1]; an unknown kind of density counts as log."""
    density = grid[..., 3].astype(np.float32)
    kind = _density_kind(arrays)
    if grid.dtype == np.uint8:
        return density / 255
    if kind == "alpha":
        return np.clip(density, 0, 1)
    step = float(arrays["delta"]) if "delta" in arrays and arrays["delta"].size == 1 else _STEP
    with np.errstate(over="ignore"):
        linear = np.maximum(density, 0) if kind == "linear" else np.exp(density)
        return 1 - np.exp(-linear * np.float32(step))


def _from_end(colour: np.ndarray, alpha: np.ndarray, axis: int) -> np.ndarray:
    """(H, W, 3) in [0, 1] on white, looking along an axis; the last remaining axis is up.

    The nearest voxels are left out, because they are walls and ceilings.
    """
    near = int(alpha.shape[axis] * (1 - _CUT))
    alpha = np.moveaxis(alpha, axis, 0)[near::-1]  # (N, A, B), nearest first
    colour = np.moveaxis(colour, axis, 0)[near::-1]
    light = np.cumprod(1 - alpha, axis=0)
    weight = alpha.copy()
    weight[1:] *= light[:-1]
    seen = (weight[..., None] * colour).sum(axis=0) + light[-1][..., None]  # (A, B, 3)
    seen = seen.transpose(1, 0, 2)[::-1]
    if axis == 1:
        seen = seen[:, ::-1]  # seen from behind, left is right
    return np.asarray(seen)


def _fit(view: np.ndarray) -> np.ndarray:
    """Enlarge to fit the tile, on white."""
    from PIL import Image

    pixels = Image.fromarray((np.clip(view, 0, 1) * 255).round().astype(np.uint8))
    scale = (_TILE - 4) / max(pixels.size)
    width, height = (max(1, round(side * scale)) for side in pixels.size)
    tile = Image.new("RGB", (_TILE, _TILE), "white")
    small = pixels.resize((width, height), Image.Resampling.BICUBIC)
    tile.paste(small, ((_TILE - width) // 2, (_TILE - height) // 2))
    return np.asarray(tile)
