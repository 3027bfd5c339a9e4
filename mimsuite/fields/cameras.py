"""Cameras of a scene, as ``transforms.json`` of instant-ngp and nerfstudio has them.

Poses are camera-to-world in the OpenGL convention: the camera looks along its -z axis, y is up.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mimsuite.errors import DataError

_MOST_BYTES = 1 << 27  # of a transforms.json


@dataclass(frozen=True)
class Camera:
    """One picture's camera.

    Attributes:
        pose: (3, 4) float64, camera to world.
        size: (height, width) in pixels; None where not said.
        focal: (x, y) focal lengths in pixels; None likewise.
        centre: (x, y) of the optical axis in pixels.
        image: path of the picture; None where there is none.
    """

    pose: np.ndarray
    size: tuple[int, int] | None = None
    focal: tuple[float, float] | None = None
    centre: tuple[float, float] | None = None
    image: Path | None = None

    @property
    def direction(self) -> np.ndarray:
        """(3,) unit vector along which it looks."""
        axis = self.pose[:, :3] @ np.array([0.0, 0.0, -1.0])
        return axis / np.linalg.norm(axis)


@dataclass(frozen=True)
class Cameras:
    """The cameras of a scene, and what is known of its extent.

    Attributes:
        box: (2, 3) lower and upper corner of the room or of its objects; None where not said.
    """

    cameras: list[Camera]
    box: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.cameras)

    def __iter__(self) -> Iterator[Camera]:
        return iter(self.cameras)

    def centres(self) -> np.ndarray:
        """(n, 3) positions."""
        return np.stack([camera.pose[:, 3] for camera in self.cameras])

    def spread(self, most: int) -> list[Camera]:
        """At most so many of them, evenly along the trajectory."""
        at = np.linspace(0, len(self) - 1, min(most, len(self))).round().astype(int)
        return [self.cameras[i] for i in at]


def read_cameras(path: Path) -> Cameras:
    """Read a ``transforms.json``.

    Raises:
        DataError: no such file, or not of that form; names the frame.
    """
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise DataError(f"{path}: larger than {_MOST_BYTES >> 20} MiB")
        document = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError):
        raise DataError(f"{path}: not a JSON file") from None
    frames = document.get("frames") if isinstance(document, dict) else None
    if not isinstance(frames, list) or not frames:
        raise DataError(f"{path}: no list 'frames' with cameras in it")
    cameras = [_camera(path, number, frame, document) for number, frame in enumerate(frames)]
    return Cameras(cameras, _box(path, document))


def _camera(path: Path, number: int, frame: Any, document: dict[str, Any]) -> Camera:
    try:
        pose = np.asarray(frame["transform_matrix"], dtype=np.float64)
        if pose.shape not in ((4, 4), (3, 4)) or not np.isfinite(pose).all():
            raise ValueError
        known = {**document, **frame}
        size = (int(known["h"]), int(known["w"])) if {"h", "w"} <= known.keys() else None
        image = path.parent / str(frame["file_path"]) if "file_path" in frame else None
        return Camera(pose[:3], size, _focal(known, size), _centre(known, size), image)
    except (KeyError, TypeError, ValueError):
        raise DataError(f"{path}: frame {number} has no usable transform_matrix or size") from None


def _focal(known: dict[str, Any], size: tuple[int, int] | None) -> tuple[float, float] | None:
    if "fl_x" in known:
        return float(known["fl_x"]), float(known.get("fl_y", known["fl_x"]))
    if "camera_angle_x" in known and size is not None:
        focal = size[1] / 2 / math.tan(float(known["camera_angle_x"]) / 2)
        return focal, focal
    return None


def _centre(known: dict[str, Any], size: tuple[int, int] | None) -> tuple[float, float] | None:
    if "cx" in known and "cy" in known:
        return float(known["cx"]), float(known["cy"])
    return (size[1] / 2, size[0] / 2) if size is not None else None


def _box(path: Path, document: dict[str, Any]) -> np.ndarray | None:
    """The room, or what its objects' boxes span."""
    try:
        if "room_bbox" in document:
            box = np.asarray(document["room_bbox"], dtype=np.float64).reshape(2, 3)
        elif document.get("bounding_boxes"):
            corners = np.concatenate([_corners(one) for one in document["bounding_boxes"]])
            box = np.stack([corners.min(0), corners.max(0)])
        else:
            return None
        if not np.isfinite(box).all() or (box[1] <= box[0]).any():
            raise ValueError
        return box
    except (KeyError, TypeError, ValueError):
        raise DataError(f"{path}: room_bbox or bounding_boxes are no boxes") from None


def _corners(box: dict[str, Any]) -> np.ndarray:
    """(8, 3) of a turned box."""
    extents = np.asarray(box["extents"], dtype=np.float64).reshape(3)
    turn = np.asarray(box.get("orientation", np.eye(3)), dtype=np.float64).reshape(3, 3)
    unit = np.array([[x, y, z] for x in (-0.5, 0.5) for y in (-0.5, 0.5) for z in (-0.5, 0.5)])
    return unit * extents @ turn.T + np.asarray(box["position"], dtype=np.float64).reshape(3)
