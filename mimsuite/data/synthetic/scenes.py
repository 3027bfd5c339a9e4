"""Radiance grids of rooms with a few solids; the most frequent solid is the class.

Density and colour are computed exactly, so a grid equals that of a perfectly trained radiance
field. Colour is the mean over a ring of cameras, each of which sees a different highlight.
"""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np

from mimsuite.data.synthetic.maker import Maker

_CAMERAS = 8
_DENSE = 300.0  # density inside a solid, per unit of length
_EMPTY = 1e-2
_STEP = 0.01  # ``delta`` in alpha = 1 - exp(-density * delta)
_WALL = 0.06  # thickness of floor and walls


def make(name: str, split: str, size: int, rng: np.random.Generator) -> bytes:
    """An ``.npz`` file, z up; ``rgbsigma`` is float32 (X, Y, Z, 4) with the longest side ``size``.

    Density is stored as its logarithm.
    """
    sides = rng.uniform([0.8, 0.8, 0.5], [1, 1, 0.8])
    sides *= 2 / sides.max()  # the longest side spans -1 to 1
    resolution = np.maximum(2, np.round(sides / 2 * size).astype(int) // 2 * 2)
    lowest = -sides / 2
    axes = [np.linspace(-side / 2, side / 2, n) for side, n in zip(sides, resolution, strict=True)]
    points = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)  # (X, Y, Z, 3)
    colour, density = _room(points, lowest, rng)
    for _ in range(int(rng.integers(3, 6))):
        _place(name, points, sides, colour, density, rng)
    for other in rng.choice([n for n in CLASSES if n != name], int(rng.integers(0, 2))):
        _place(str(other), points, sides, colour, density, rng)
    grid = np.concatenate([np.clip(colour, 0, 1), np.log(density)[..., None]], axis=-1)
    stream = io.BytesIO()
    np.savez_compressed(
        stream,
        rgbsigma=grid.astype(np.float32),
        resolution=resolution,
        bbox_min=lowest.astype(np.float32),
        bbox_max=-lowest.astype(np.float32),
        scale=np.float32(1),
        offset=np.zeros(3, np.float32),
        from_mitsuba=np.bool_(False),
        density_kind=np.str_("log"),
        delta=np.float32(_STEP),
        voxel_size=(sides / (resolution - 1)).astype(np.float32),
        up=np.str_("z"),
        schema=np.int64(1),
    )
    return stream.getvalue()


def _room(
    points: np.ndarray, lowest: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """A floor and two walls; colour (X, Y, Z, 3) and density (X, Y, Z)."""
    colour = np.full(points.shape, 0.5)
    density = np.full(points.shape[:3], _EMPTY)
    for axis in (1, 0, 2):  # the floor last: it covers the bottom of the walls
        inside = points[..., axis] < lowest[axis] + _WALL
        colour[inside] = rng.uniform(0.5, 0.9, 3)
        density[inside] = _DENSE
    return colour, density


def _place(
    name: str,
    points: np.ndarray,
    sides: np.ndarray,
    colour: np.ndarray,
    density: np.ndarray,
    rng: np.random.Generator,
) -> None:
    """Put a solid on the floor; its surface is shaded by the surface normal."""
    radius = rng.uniform(0.13, 0.24)
    at = rng.uniform(-0.5, 0.5, 3) * (sides - 3 * radius)
    at[2] = -sides[2] / 2 + _WALL + radius
    local = (points - at) / radius
    inside = _SOLIDS[name](local)
    normal = local[inside] / np.maximum(np.linalg.norm(local[inside], axis=1, keepdims=True), 1e-9)
    colour[inside] = _shaded(normal, rng.uniform(0.1, 0.95, 3))
    density[inside] = _DENSE


def _shaded(normal: np.ndarray, own: np.ndarray) -> np.ndarray:
    """(N, 3) colours under light from above, averaged over the cameras."""
    light = np.array([0.4, 0.3, 0.866])
    lambert = 0.45 + 0.55 * np.clip(normal @ light, 0, 1)
    angles = np.arange(_CAMERAS) * 2 * np.pi / _CAMERAS
    cameras = np.stack([np.cos(angles), np.sin(angles), np.full(_CAMERAS, 0.5)], axis=1)
    half = cameras / np.linalg.norm(cameras, axis=1, keepdims=True) + light
    half /= np.linalg.norm(half, axis=1, keepdims=True)
    highlight = (np.clip(normal @ half.T, 0, 1) ** 16).mean(axis=1)  # (N, cameras) -> (N,)
    shaded: np.ndarray = lambert[:, None] * own + 0.4 * highlight[:, None]
    return shaded


_SOLIDS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "balls": lambda p: np.linalg.norm(p, axis=-1) < 1,
    "boxes": lambda p: np.abs(p).max(axis=-1) < 0.85,
    "pillars": lambda p: (
        (np.hypot(p[..., 0], p[..., 1]) < 0.6) & (p[..., 2] > -1) & (p[..., 2] < 2.5)
    ),
    "rings": lambda p: np.hypot(np.hypot(p[..., 0], p[..., 1]) - 0.9, p[..., 2] + 0.5) < 0.4,
}
CLASSES = tuple(_SOLIDS)


MAKER = Maker(CLASSES, "npz", 40, 8, make)
