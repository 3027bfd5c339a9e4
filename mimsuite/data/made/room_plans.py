"""Plans of furnished rooms: what stands where, in which colours, and from where it is seen.

Colours are drawn alike for all classes, so it is shape and place that tell them. Metres, z up.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mimsuite.data.made.catalogue_meshes import CatalogueObject

_FEWEST, _MOST = 4, 8  # pieces
_TRIES = 30
_GAP = 0.05  # metres between pieces


@dataclass(frozen=True)
class Piece:
    """An object in a room: where it stands, (2,) metres, how it is turned, and its colour."""

    shape: CatalogueObject
    at: np.ndarray
    yaw: float
    colour: np.ndarray


@dataclass(frozen=True)
class Plan:
    """A room and its camera.

    Attributes:
        half: metres from the middle of the floor to the two walls, at x = -half and y = half.
        colours: (3, 3) of the floor and the walls, in [0, 1].
        eye, target: (3,) where the camera is and looks at.
        field_of_view: degrees.
        light: (3,) direction that light comes from.
    """

    pieces: list[Piece]
    half: float
    colours: np.ndarray
    eye: np.ndarray
    target: np.ndarray
    field_of_view: float
    light: np.ndarray


def draw_plan(objects: Mapping[str, Sequence[CatalogueObject]], rng: np.random.Generator) -> Plan:
    """A room furnished with some of these objects, by class; every class is drawn alike."""
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
    """A place on the floor where it touches nothing; ``None`` where none was found."""
    room = half - shape.reach
    for _ in range(_TRIES):
        at = rng.uniform(-room, room, 2)
        gaps = [np.hypot(*(one.at - at)) - one.shape.reach - shape.reach for one in others]
        if all(gap > _GAP for gap in gaps):
            yaw = float(rng.uniform(-np.pi, np.pi))
            return Piece(shape, at, yaw, rng.uniform(0.08, 0.95, 3))
    return None
