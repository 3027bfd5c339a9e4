"""Point clouds of three kinds of objects, with a part label for every point.

As in ShapeNetPart, part ids are unique over all classes. Clouds are (N, 4): xyz and part id.
"""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np

from mimsuite.data.synthetic.maker import Maker

_NOISE = 0.01  # standard deviation, for clouds of radius 1
Pieces = list[np.ndarray]  # for each part, as many points as the whole object will have
PARTS = {"chair": 3, "mug": 2, "table": 2}  # parts per class
CLASSES = tuple(PARTS)


def make(name: str, split: str, size: int, rng: np.random.Generator) -> bytes:
    """An ``.npy`` file, float32 (size, 4), in the unit sphere."""
    pieces = _OBJECTS[name](size, rng)
    first = sum(PARTS[other] for other in CLASSES[: CLASSES.index(name)])
    part = rng.integers(len(pieces), size=size)
    points = np.stack(pieces)[part, np.arange(size)] * rng.uniform(0.7, 1.3, 3)
    turn = rng.uniform(0, 2 * np.pi)
    cos, sin = np.cos(turn), np.sin(turn)
    points = points @ np.array([[cos, 0, -sin], [0, 1, 0], [sin, 0, cos]])
    points += rng.normal(0, _NOISE, points.shape)
    points -= points.mean(axis=0)
    points /= np.linalg.norm(points, axis=1).max()
    stream = io.BytesIO()
    table = np.concatenate([points, (first + part)[:, None]], axis=1)
    np.save(stream, table.astype("<f4"), allow_pickle=False)
    return stream.getvalue()


def _box(count: int, rng: np.random.Generator, low: list[float], high: list[float]) -> np.ndarray:
    return rng.uniform(low, high, (count, 3))


def _legs(count: int, rng: np.random.Generator, top: float, reach: list[float]) -> np.ndarray:
    legs = _box(count, rng, [-0.06, -0.9, -0.06], [0.06, top, 0.06])
    legs[:, [0, 2]] += rng.choice([-1.0, 1.0], (count, 2)) * reach
    return legs


def _chair(count: int, rng: np.random.Generator) -> Pieces:
    """Seat, back, legs."""
    height = rng.uniform(0.7, 1.1)
    return [
        _box(count, rng, [-0.5, -0.1, -0.5], [0.5, 0.0, 0.5]),
        _box(count, rng, [-0.5, 0.0, -0.5], [0.5, height, -0.4]),
        _legs(count, rng, -0.1, [0.42, 0.42]),
    ]


def _mug(count: int, rng: np.random.Generator) -> Pieces:
    """Cup, handle."""
    turn, up = rng.uniform(0, 2 * np.pi, count), rng.uniform(-0.8, 0.8, count)
    floor = rng.random(count) < 0.2
    radius = np.where(floor, 0.7 * np.sqrt(rng.random(count)), 0.7)
    cup = np.stack([radius * np.cos(turn), np.where(floor, -0.8, up), radius * np.sin(turn)], 1)
    around, angle = rng.uniform(-np.pi / 2, np.pi / 2, count), rng.uniform(0, 2 * np.pi, count)
    reach = rng.uniform(0.35, 0.5) + 0.08 * np.cos(angle)
    handle = [0.7 + reach * np.cos(around), reach * np.sin(around), 0.08 * np.sin(angle)]
    return [cup, np.stack(handle, axis=1)]


def _table(count: int, rng: np.random.Generator) -> Pieces:
    """Board, legs."""
    board = _box(count, rng, [-1.0, 0.4, -0.7], [1.0, 0.5, 0.7])
    return [board, _legs(count, rng, 0.4, [0.9, 0.6])]


_OBJECTS: dict[str, Callable[[int, np.random.Generator], Pieces]] = {
    "chair": _chair,
    "mug": _mug,
    "table": _table,
}


MAKER = Maker(CLASSES, "npy", 1024, 8, make)
