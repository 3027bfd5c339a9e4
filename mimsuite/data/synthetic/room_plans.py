"""Random plans of furnished rooms: pieces, positions, colours and camera.

Colours are distributed equally for all classes, so only shape and position reveal the class.
Lengths are in metres, z is up.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mimsuite.data.synthetic.catalogue_meshes import CatalogueObject

_FEWEST, _MOST = 4, 8  # pieces in a room in a room
_TRIES = 30
_GAP = 0.05  # metres between pieces


@dataclass(frozen=True)
class Piece:
    """An object in a room: its position (2,) in metres, rotation and colour."""

    shape: CatalogueObject
    at: np.ndarray
    yaw: float
    colour: np.ndarray


@dataclass(frozen=True)
class Plan:
    """A room and its camera.

    Attributes:
        half: metres from the floor's centre to the two walls, at x = -half and y = half.
        colours: (3, 3) RGB of floor and walls, in [0, 1].
        eye, target: (3,) camera position, and the point it looks at.
        field_of_view: degrees.
        light: (3,) direction towards the light.
    """

    pieces: list[Piece]
    half: float
    colours: np.ndarray
    eye: np.ndarray
    target: np.ndarray
    field_of_view: float
    light: np.ndarray


def draw_plan(objects: Mapping[str, Sequence[CatalogueObject]], rng: np.random.Generator) -> Plan:
    """A room with random objects; every class is equally likely."""
    half = float(rng.uniform(1.8, 2.6))
    pieces: list[Piece] = []
    kinds = list(objects)
    for _ in range(int(rng.integers(_FEWEST, _MOST + 1))):
        kind = objects[kinds[int(rng.integers(len(kinds)))]]
        piece = _placed(kind[int(rng.integers(len(kind)))], pieces, half, rng)
        if piece is not None:
            pieces.append(piece)
    away = rng.uniform(-0.6, 0.6) - np.pi / 4  # from the corner of the walls towards the camera
    target = np.array([*rng.uniform(-0.4, 0.4, 2), rng.uniform(0.2, 0.6)])
    distance = rng.uniform(2.9, 4.3)
    eye = target + distance * np.array([np.cos(away), np.sin(away), 0.0])
    eye[2] = rng.uniform(1.1, 2.4)
    return Plan(
        pieces,
        half,
        rng.uniform(0.45, 0.95, (3, 3)),
        eye,
        target,
        float(rng.uniform(48, 62)),
        np.array([*rng.uniform(-1, 1, 2), 2.0]),
    )


def _placed(
    shape: CatalogueObject, others: Sequence[Piece], half: float, rng: np.random.Generator
) -> Piece | None:
    """The object at a free position on the floor; ``None`` if no position was found."""
    room = half - shape.reach
    for _ in range(_TRIES):
        at = rng.uniform(-room, room, 2)
        gaps = [np.hypot(*(one.at - at)) - one.shape.reach - shape.reach for one in others]
        if all(gap > _GAP for gap in gaps):
            yaw = float(rng.uniform(-np.pi, np.pi))
            return Piece(shape, at, yaw, rng.uniform(0.08, 0.95, 3))
    return None
