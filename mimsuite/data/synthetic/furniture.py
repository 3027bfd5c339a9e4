"""Radiance grids of furnished rooms, with a box for each piece and a class for each voxel.

Pieces do not touch; colour and rotation are random, so only the shape reveals the class.
"""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np

from mimsuite.data.synthetic.maker import Maker

_DENSE = 300.0  # density inside objects, per unit of length
_EMPTY = 1e-2
_STEP = 0.01  # ``delta`` in alpha = 1 - exp(-density * delta)
_WALLS = 1  # thickness of floor and walls, in voxels
_FEWEST, _MOST = 2, 5  # pieces in a room
_TRIES = 40
_LEAST = 1.5  # smallest side in voxels: thinner parts fall between the grid points

Shape = Callable[[np.ndarray], np.ndarray]  # (N, 3) in [-0.5, 0.5] -> (N,) bool


def _bed(p: np.ndarray) -> np.ndarray:
    """A mattress, and a headboard at one end."""
    return (p[:, 2] < 0.0) | (p[:, 0] < -0.36)


def _cabinet(p: np.ndarray) -> np.ndarray:
    return np.ones(len(p), bool)


def _chair(p: np.ndarray) -> np.ndarray:
    """A seat on a pillar, and a back."""
    seat = (p[:, 2] > -0.2) & (p[:, 2] < 0.1)
    pillar = (np.abs(p[:, 0]) < 0.2) & (np.abs(p[:, 1]) < 0.2) & (p[:, 2] < 0)
    chair: np.ndarray = seat | pillar | ((p[:, 0] < -0.2) & (p[:, 2] > 0))
    return chair


def _table(p: np.ndarray) -> np.ndarray:
    """A board on four legs."""
    legs = (np.abs(p[:, 0]) > 0.3) & (np.abs(p[:, 1]) > 0.25)
    table: np.ndarray = legs | (p[:, 2] > 0.15)
    return table


# Shape, and the range of its sides; a room is two units wide.
_KINDS: dict[str, tuple[Shape, tuple[list[float], list[float]]]] = {
    "beds": (_bed, ([0.75, 0.5, 0.3], [0.95, 0.65, 0.4])),
    "cabinets": (_cabinet, ([0.4, 0.25, 0.6], [0.6, 0.35, 0.9])),
    "chairs": (_chair, ([0.3, 0.3, 0.5], [0.4, 0.4, 0.65])),
    "tables": (_table, ([0.55, 0.4, 0.35], [0.8, 0.55, 0.45])),
}
CLASSES = tuple(_KINDS)
LABELS = ("nothing", "room", *CLASSES)  # voxel classes


def make(name: str, split: str, size: int, rng: np.random.Generator) -> bytes:
    """An ``.npz`` file as from :mod:`.scenes`, z up, with ``boxes`` (G, 7) float32 in voxels and
    ``labels`` (X, Y, Z) uint8, indices into :data:`LABELS`. The first piece has class ``name``."""
    voxel = 2 / (size - 1)
    shares = rng.uniform([0.85, 0.85, 0.45], [1, 1, 0.6])
    resolution = np.maximum(4, np.round(shares / shares.max() * size).astype(int))
    axes = [np.arange(side) + 0.5 for side in resolution]
    points = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)  # (X, Y, Z, 3), in voxels
    colour = np.full(points.shape, 0.5)
    labels = np.zeros(resolution, np.uint8)
    for axis in (1, 0, 2):  # the floor last: it covers the bottom of the walls
        wall = points[..., axis] < _WALLS
        colour[wall], labels[wall] = rng.uniform(0.5, 0.9, 3), 1
    boxes: list[np.ndarray] = []
    names = [name, *rng.choice(CLASSES, int(rng.integers(_FEWEST, _MOST + 1)) - 1)]
    for kind in names:
        _place(str(kind), points, boxes, colour, labels, voxel, rng)
    density = np.where(labels > 0, _DENSE, _EMPTY)
    grid = np.concatenate([np.clip(colour, 0, 1), np.log(density)[..., None]], axis=-1)
    half = (resolution - 1) * voxel / 2
    stream = io.BytesIO()
    np.savez_compressed(
        stream,
        rgbsigma=grid.astype(np.float32),
        resolution=resolution,
        bbox_min=(-half).astype(np.float32),
        bbox_max=half.astype(np.float32),
        density_kind=np.str_("log"),
        delta=np.float32(_STEP),
        voxel_size=np.full(3, voxel, np.float32),
        up=np.str_("z"),
        schema=np.int64(1),
        boxes=np.stack(boxes).astype(np.float32) if boxes else np.zeros((0, 7), np.float32),
        labels=labels,
    )
    return stream.getvalue()


def _place(
    kind: str,
    points: np.ndarray,
    boxes: list[np.ndarray],
    colour: np.ndarray,
    labels: np.ndarray,
    voxel: float,
    rng: np.random.Generator,
) -> None:
    """Put a piece on the floor where it touches nothing; leave it out if there is no room."""
    shape, sides_of = _KINDS[kind]
    room = np.array(labels.shape, float)
    for _ in range(_TRIES):
        sides = np.maximum(rng.uniform(*sides_of) / voxel, _LEAST)
        yaw = rng.uniform(-np.pi / 2, np.pi / 2)
        reach = np.hypot(sides[0], sides[1]) / 2
        if (room[:2] - _WALLS <= 2 * reach).any() or room[2] - _WALLS < sides[2]:
            continue
        at = np.append(rng.uniform(_WALLS + reach, room[:2] - reach), _WALLS + sides[2] / 2)
        apart = [np.hypot(*(box[:2] - at[:2])) - np.hypot(*box[3:5]) / 2 - reach for box in boxes]
        if all(gap > 0 for gap in apart):
            break
    else:
        return
    boxes.append(np.array([*at, *sides, yaw]))
    cos, sin = np.cos(yaw), np.sin(yaw)
    local = (points - at) @ np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]]) / sides
    inside = (np.abs(local) <= 0.5).all(-1)
    inside[inside] = shape(local[inside])
    shade = 0.75 + 0.5 * local[inside][:, 2:]  # lighter towards the top
    colour[inside] = rng.uniform(0.1, 0.9, 3) * shade
    labels[inside] = LABELS.index(kind)


MAKER = Maker(CLASSES, "npz", 40, 16, make)
