"""Point clouds of eight parametric surfaces; the surface is the class.

Scale along each axis, rotation about the vertical axis (y) and small noise vary.
"""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np

from mimsuite.data.synthetic.maker import Maker

_NOISE = 0.01  # standard deviation, for clouds of radius 1


def make(name: str, split: str, size: int, rng: np.random.Generator) -> bytes:
    """An ``.npy`` file, float32 (size, 3), in the unit sphere."""
    points = _SURFACES[name](size, rng) * rng.uniform(0.6, 1.4, 3)
    turn = rng.uniform(0, 2 * np.pi)
    cos, sin = np.cos(turn), np.sin(turn)
    points = points @ np.array([[cos, 0, -sin], [0, 1, 0], [sin, 0, cos]])
    points += rng.normal(0, _NOISE, points.shape)
    points -= points.mean(axis=0)
    points /= np.linalg.norm(points, axis=1).max()
    stream = io.BytesIO()
    np.save(stream, points.astype("<f4"), allow_pickle=False)
    return stream.getvalue()


def _sphere(count: int, rng: np.random.Generator) -> np.ndarray:
    points = rng.normal(size=(count, 3))
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    return points


def _cube(count: int, rng: np.random.Generator) -> np.ndarray:
    points = rng.uniform(-1, 1, (count, 3))
    points[np.arange(count), rng.integers(0, 3, count)] = rng.choice([-1.0, 1.0], count)
    return points


def _cylinder(count: int, rng: np.random.Generator) -> np.ndarray:
    """A wall of radius 1 from y = -1 to 1, and two lids; the wall has two thirds of the area."""
    angle, height = rng.uniform(0, 2 * np.pi, count), rng.uniform(-1, 1, count)
    lid = rng.random(count) < 1 / 3
    radius = np.where(lid, np.sqrt(rng.random(count)), 1)
    height = np.where(lid, np.sign(height), height)
    return np.stack([radius * np.cos(angle), height, radius * np.sin(angle)], axis=1)


def _cone(count: int, rng: np.random.Generator) -> np.ndarray:
    """Radius 1 at y = -1, tapering to 0 at y = 1, and a base."""
    angle, radius = rng.uniform(0, 2 * np.pi, count), np.sqrt(rng.random(count))
    base = rng.random(count) < 1 / (1 + np.sqrt(5))
    height = np.where(base, -1, 1 - 2 * radius)
    return np.stack([radius * np.cos(angle), height, radius * np.sin(angle)], axis=1)


def _torus(count: int, rng: np.random.Generator) -> np.ndarray:
    around, angle = rng.uniform(0, 2 * np.pi, (2, count))
    radius = 0.7 + 0.3 * np.cos(angle)
    return np.stack([radius * np.cos(around), 0.3 * np.sin(angle), radius * np.sin(around)], axis=1)


def _helix(count: int, rng: np.random.Generator) -> np.ndarray:
    along = rng.random(count)
    angle = along * 6 * np.pi
    tube = _sphere(count, rng) * 0.12
    line = np.stack([0.8 * np.cos(angle), 2 * along - 1, 0.8 * np.sin(angle)], axis=1)
    return line + tube


def _table(count: int, rng: np.random.Generator) -> np.ndarray:
    """A board on four legs."""
    board = rng.uniform([-1, 0.4, -0.7], [1, 0.5, 0.7], (count, 3))
    corner = rng.choice([-1.0, 1.0], (count, 2)) * [0.9, 0.6]
    legs = rng.uniform([-0.06, -0.8, -0.06], [0.06, 0.4, 0.06], (count, 3))
    legs[:, [0, 2]] += corner
    return np.where(rng.random((count, 1)) < 0.6, board, legs)


def _mug(count: int, rng: np.random.Generator) -> np.ndarray:
    """An open cup with a handle."""
    cup = _cylinder(count, rng) * [0.7, 0.8, 0.7]
    cup[:, 1] = np.where(np.hypot(cup[:, 0], cup[:, 2]) < 0.69, -0.8, cup[:, 1])
    around, angle = rng.uniform(-np.pi / 2, np.pi / 2, count), rng.uniform(0, 2 * np.pi, count)
    radius = 0.4 + 0.08 * np.cos(angle)
    handle = np.stack(
        [0.7 + radius * np.cos(around), radius * np.sin(around), 0.08 * np.sin(angle)], axis=1
    )
    return np.where(rng.random((count, 1)) < 0.85, cup, handle)


_SURFACES: dict[str, Callable[[int, np.random.Generator], np.ndarray]] = {
    "cone": _cone,
    "cube": _cube,
    "cylinder": _cylinder,
    "helix": _helix,
    "mug": _mug,
    "sphere": _sphere,
    "table": _table,
    "torus": _torus,
}
CLASSES = tuple(_SURFACES)


MAKER = Maker(CLASSES, "npy", 1024, 8, make)
