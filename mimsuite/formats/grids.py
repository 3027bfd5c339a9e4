"""Radiance grids: ``.npz`` files with ``rgbsigma``, as NeRF-RPN and NeRF-MAE store them.

``rgbsigma`` is (X, Y, Z, 4), or flat (X * Y * Z, 4) with x running fastest and ``resolution`` =
(X, Y, Z) beside it; the last channel is density. ``density_kind`` says whether that is ``log``,
``linear`` or ``alpha``.
"""

from __future__ import annotations

import numpy as np

from mimsuite.errors import CorruptSample
from mimsuite.formats.arrays import read_npz

MOST_BYTES = 1 << 29  # of all arrays of a file
LONGEST_SIDE = 512  # voxels
_KINDS = "fiubU"
_TYPES = ("uint8", "float16", "float32")
_DENSITIES = ("log", "linear", "alpha")
_STEP = 0.01  # length in which light is absorbed, for pictures of files that name none
_TILE = 96
_CUT = 0.2  # of the depth, in pictures


def read(data: bytes) -> tuple[np.ndarray, str | None, float | None]:
    """((X, Y, Z, 4) as stored, kind of density, length that absorbs light); None: not said.

    Raises:
        CorruptSample: kind ``too-large`` or ``decode``.
    """
    arrays = read_npz(data, _KINDS, MOST_BYTES)
    delta = float(arrays["delta"]) if "delta" in arrays and arrays["delta"].size == 1 else None
    return _grid(arrays), _density_kind(arrays), delta


def facts(data: bytes) -> dict[str, int | float | str]:
    """Sides in voxels, share of voxels that are occupied, type and kind of density."""
    arrays = read_npz(data, _KINDS, MOST_BYTES)
    grid = _grid(arrays)
    return {
        "x": grid.shape[0],
        "y": grid.shape[1],
        "z": grid.shape[2],
        "occupied": round(float((_alpha(grid, arrays) > 0.01).mean()), 4),
        "channels": f"4 x {grid.dtype}",
        "density": _density_kind(arrays) or "not said",
    }


def store(data: bytes) -> tuple[str, bytes]:
    """The file as it is, once all of it was read."""
    facts(data)
    return "npz", data


def picture(data: bytes) -> np.ndarray:
    """(96, 192, 3) uint8: what is seen along y and from above, the nearest fifth cut away."""
    arrays = read_npz(data, _KINDS, MOST_BYTES)
    grid = _grid(arrays)
    alpha = _alpha(grid, arrays)
    top = 255.0 if grid.dtype == np.uint8 else 1.0
    colour = np.clip(np.nan_to_num(grid[..., :3].astype(np.float32) / top), 0, 1)
    views = [_from_end(colour, alpha, axis) for axis in (1, 2)]
    return np.concatenate([_fit(view) for view in views], axis=1)


def _grid(arrays: dict[str, np.ndarray]) -> np.ndarray:
    """(X, Y, Z, 4), whichever way it is stored."""
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


def _density_kind(arrays: dict[str, np.ndarray]) -> str | None:
    kind = str(arrays["density_kind"]) if "density_kind" in arrays else None
    if kind is not None and kind not in _DENSITIES:
        raise CorruptSample("decode", f"density_kind '{kind}'; known are {', '.join(_DENSITIES)}")
    return kind


def _alpha(grid: np.ndarray, arrays: dict[str, np.ndarray]) -> np.ndarray:
    """(X, Y, Z) opacity in [0, 1]; files that do not say what their density is count as log."""
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
    """(H, W, 3) in [0, 1] on white, looking down an axis; the last axis left is upwards.

    Rooms have walls and ceilings, so what is nearest is left out.
    """
    near = int(alpha.shape[axis] * (1 - _CUT))
    alpha = np.moveaxis(alpha, axis, 0)[near::-1]  # (N, A, B), near first
    colour = np.moveaxis(colour, axis, 0)[near::-1]
    light = np.cumprod(1 - alpha, axis=0)
    weight = alpha.copy()
    weight[1:] *= light[:-1]
    seen = (weight[..., None] * colour).sum(axis=0) + light[-1][..., None]  # (A, B, 3)
    seen = seen.transpose(1, 0, 2)[::-1]
    return seen[:, ::-1] if axis == 1 else seen  # seen from behind, left is right


def _fit(view: np.ndarray) -> np.ndarray:
    """Shown as large as the tile allows, on white."""
    from PIL import Image

    pixels = Image.fromarray((np.clip(view, 0, 1) * 255).round().astype(np.uint8))
    scale = (_TILE - 4) / max(pixels.size)
    width, height = (max(1, round(side * scale)) for side in pixels.size)
    tile = Image.new("RGB", (_TILE, _TILE), "white")
    small = pixels.resize((width, height), Image.Resampling.BICUBIC)
    tile.paste(small, ((_TILE - width) // 2, (_TILE - height) // 2))
    return np.asarray(tile)
