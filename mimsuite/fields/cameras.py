"""Cameras of a scene, read from a ``transforms.json`` of instant-ngp, nerfstudio or Blender.

Poses are camera-to-world in the OpenGL convention: the camera looks along its -z axis, y is up.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mimsuite.data.image.kinds import FORMATS, IMAGE_EXTENSIONS
from mimsuite.data.unused import Unused
from mimsuite.errors import DataError
from mimsuite.fields.lens import Lens
from mimsuite.text import clean

_MOST_BYTES = 1 << 27  # largest transforms.json
_FILES = ("transforms.json", "transforms_train.json", "transforms_val.json", "transforms_test.json")
_ENDINGS = (".png", *(f".{name}" for name in IMAGE_EXTENSIONS if name != "png"))
_STRAIGHT = ("SIMPLE_PINHOLE", "PINHOLE", "SIMPLE_RADIAL", "RADIAL", "OPENCV", "PERSPECTIVE")
_FISHEYE = ("OPENCV_FISHEYE", "SIMPLE_RADIAL_FISHEYE", "RADIAL_FISHEYE", "FISHEYE")
_BENT = ("k5", "k6", "s1", "s2", "s3", "s4", "sx1", "sx2", "sy1", "sy2", "shear", "skew",
         "rolling_shutter", "distortion_params", "latlong", "equirectangular", "orthographic",
         *(f"ftheta_p{i}" for i in range(5)))  # fmt: skip
_FOCAL = ("fl_x", "fl_y", "camera_angle_x", "camera_angle_y", "x_fov", "y_fov")
_TERMS = ("k1", "k2", "k3", "k4", "p1", "p2")
_LENS = ("w", "h", "cx", "cy", "camera_model", "is_fisheye", *_FOCAL, *_TERMS, *_BENT)
# Other names under which a lens is written.
_OTHER_LENS = re.compile(
    r"intrin|distort|focal|fov|princip|camera_matri|lens|fisheye|pixel_aspect|^shift_|"
    r"^(?:k|d|k\d+|p\d+|[cf]_?[xyuv])$",
    re.IGNORECASE,
)
_MODELS = ("PINHOLE", "SIMPLE_RADIAL", "RADIAL", "OPENCV", "OPENCV_FISHEYE")
_ORIENTATION, _SIDEWAYS = 0x112, 5  # EXIF tag; from 5 on, width and height are swapped
_OF_FILE = {"frames", "room_bbox", "bounding_boxes", *_LENS}
_OF_FRAME = {"file_path", "transform_matrix", "time", *_LENS}


@dataclass(frozen=True)
class Camera:
    """The camera of one image.

    Attributes:
        pose: (3, 4) float64, camera to world.
        lens: lens for the image size in the file, else for the image's own size; None where the
            size or the focal length is unknown.
        image: path of the image; None where there is none.
    """

    pose: np.ndarray
    lens: Lens | None = None
    image: Path | None = None

    @property
    def direction(self) -> np.ndarray:
        """(3,) unit vector of the optical axis."""
        axis = self.pose[:, :3] @ np.array([0.0, 0.0, -1.0])
        return axis / np.linalg.norm(axis)


@dataclass(frozen=True)
class Cameras:
    """The cameras of a scene, and its bounding box if known.

    Attributes:
        box: (2, 3) lower and upper corner of the room or of its objects; None where unknown.
        unused: keys of the file that are not read.
    """

    cameras: list[Camera]
    box: np.ndarray | None = None
    unused: Unused = field(default_factory=Unused)

    def __len__(self) -> int:
        return len(self.cameras)

    def __iter__(self) -> Iterator[Camera]:
        return iter(self.cameras)

    def centres(self) -> np.ndarray:
        """(n, 3) positions."""
        return np.stack([camera.pose[:, 3] for camera in self.cameras])

    def spread(self, most: int) -> list[Camera]:
        """At most ``most`` cameras, evenly spaced along the trajectory."""
        at = np.linspace(0, len(self) - 1, min(most, len(self))).round().astype(int)
        return [self.cameras[i] for i in at]


def cameras_file(path: Path, unused: Unused) -> Path:
    """The file itself, or the one in a folder: ``transforms.json``, else the training split's.

    Raises:
        DataError: the folder has none.
    """
    if not path.is_dir():
        return path
    files = [path / name for name in _FILES if (path / name).is_file()]
    if not files:
        raise DataError(f"{path}: no {_FILES[0]} or {_FILES[1]} in it")
    unused.add("other files of cameras", [file.name for file in files[1:]])
    return files[0]


def read_cameras(path: Path) -> Cameras:
    """Read a ``transforms.json``, or the one in a folder; see :func:`cameras_file`.

    Raises:
        DataError: the file is missing or malformed, or a lens is not supported; names the frame.
    """
    unused = Unused()
    path = cameras_file(path, unused)
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
    if len({str(frame.get("time")) for frame in frames}) > 1:
        raise DataError(f"{path}: the scene moves ('time' differs from frame to frame)")
    _count_unused(document, frames, unused)
    return Cameras(cameras, _box(path, document), unused)


def _count_unused(document: dict[str, Any], frames: list[dict[str, Any]], unused: Unused) -> None:
    """Count the keys that are not read; none of them affects poses or lenses."""
    keys = sorted(set(document) - _OF_FILE)
    unused.add(f"keys of the cameras' file: {', '.join(keys)}", count=len(keys))
    counted = Counter(key for frame in frames for key in frame if key not in _OF_FRAME)
    for key, count in sorted(counted.items()):
        unused.add(f"{key} of frames", count=count)


def _camera(path: Path, number: int, frame: Any, document: dict[str, Any]) -> Camera:
    try:
        pose = np.asarray(frame["transform_matrix"], dtype=np.float64)
        if pose.shape not in ((4, 4), (3, 4)) or not np.isfinite(pose).all():
            raise ValueError
        image = (
            _picture_file(path.parent, str(frame["file_path"])) if "file_path" in frame else None
        )
    except (KeyError, TypeError, ValueError):
        raise DataError(f"{path}: frame {number} has no usable transform_matrix") from None
    try:
        return Camera(pose[:3], _lens(_known(document, frame), image), image)
    except (TypeError, ValueError, ZeroDivisionError) as fault:
        raise DataError(f"{path}: frame {number}: {fault}") from None


def _picture_file(folder: Path, name: str) -> Path:
    """The image of a frame; Blender's names have no suffix and mean ``.png``."""
    file = folder / name.replace("\\", "/")
    if file.suffix.lower() in _ENDINGS or file.is_file():
        return file
    named = [file.with_name(file.name + ending) for ending in _ENDINGS]
    return next((candidate for candidate in named if candidate.is_file()), named[0])


def _known(document: dict[str, Any], frame: dict[str, Any]) -> dict[str, Any]:
    """Keys of a frame over the file's keys, without null values."""
    whole = document
    if any(frame.get(key) is not None for key in _FOCAL):  # replaces every form of focal length
        whole = {key: value for key, value in document.items() if key not in _FOCAL}
    return {key: value for key, value in {**whole, **frame}.items() if value is not None}


def _lens(known: dict[str, Any], image: Path | None) -> Lens | None:
    """The lens described by the keys of a frame; ValueError names a wrong key."""
    fisheye, terms = _distortion(known)
    size = (_number(known, "h"), _number(known, "w")) if {"h", "w"} <= known.keys() else None
    size = _size_of(image) if size is None else size
    focal = None if size is None else _focal(known, size, fisheye)
    if size is None or focal is None:
        return None
    if min(*size, *focal) <= 0:
        raise ValueError("sizes and focal lengths must be above 0")
    centre = _number(known, "cx", size[1] / 2), _number(known, "cy", size[0] / 2)
    k1, k2, k3, k4, p1, p2 = terms
    whole = (round(size[0]), round(size[1]))
    return Lens(whole, focal, centre, (k1, k2, k3, k4), (p1, p2), fisheye)


def _distortion(known: dict[str, Any]) -> tuple[bool, list[float]]:
    """Whether it is a fisheye lens, and k1, k2, k3, k4, p1, p2."""
    model = str(
        known.get("camera_model", "OPENCV_FISHEYE" if known.get("is_fisheye") else "OPENCV")
    )
    if model.upper() not in _STRAIGHT + _FISHEYE:
        raise ValueError(f"camera_model {model} is not supported: use {', '.join(_MODELS)}")
    fisheye = model.upper() in _FISHEYE
    not_read = [*_BENT, *(("p1", "p2") if fisheye else ("k4",))]
    wrong = [key for key in not_read if _is_set(known.get(key))]
    if wrong:
        raise ValueError(f"{wrong[0]} is not supported; undistort the pictures first")
    for key, value in known.items():
        if key not in _LENS and _OTHER_LENS.search(key) and _is_set(value):
            raise ValueError(
                f"{clean(key)[:40]} is not read: write the lens as fl_x, fl_y, cx, cy, k1 ... and "
                "leave that key out"
            )
    return fisheye, [_number(known, key, 0.0) for key in _TERMS]


def _is_set(value: Any) -> bool:
    return any(map(_is_set, value)) if isinstance(value, list) else bool(value)


def _focal(
    known: dict[str, Any], size: tuple[float, float], fisheye: bool
) -> tuple[float, float] | None:
    """(x, y) focal lengths in pixels, from lengths or angles of view; None where neither is set."""
    if "fl_x" in known or "fl_y" in known:
        first = _number(known, "fl_x" if "fl_x" in known else "fl_y")
        return first, _number(known, "fl_y", first)
    lengths: list[float | None] = []
    for side, angle, degrees in (
        (size[1], "camera_angle_x", "x_fov"),
        (size[0], "camera_angle_y", "y_fov"),
    ):
        view = _number(known, angle, math.radians(_number(known, degrees, 0.0)))
        lengths.append(side / 2 / math.tan(view / 2) if view else None)
    x, y = lengths
    if x is None and y is None:
        return None
    if fisheye:
        raise ValueError("a fisheye lens needs fl_x")
    return (x or y, y or x)  # type: ignore[return-value]


def _number(known: dict[str, Any], key: str, default: float | None = None) -> float:
    value = known.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{key} is {str(value)[:40]!r}, not a number")
    return float(value)


def _size_of(image: Path | None) -> tuple[float, float] | None:
    """(height, width) of the upright image; None where it cannot be read."""
    if image is None:
        return None
    from PIL import Image

    try:
        with Image.open(image, formats=FORMATS) as picture:
            turned = picture.getexif().get(_ORIENTATION, 1) >= _SIDEWAYS
            width, height = picture.size
    except Exception:  # the later reader of the image reports the fault
        return None
    return (width, height) if turned else (height, width)


def _box(path: Path, document: dict[str, Any]) -> np.ndarray | None:
    """(2, 3) box of the room, or around the boxes of its objects."""
    try:
        if "room_bbox" in document:
            box = np.asarray(document["room_bbox"], dtype=np.float64).reshape(2, 3)
        elif document.get("bounding_boxes"):
            corners = np.concatenate([_corners(item) for item in document["bounding_boxes"]])
            box = np.stack([corners.min(0), corners.max(0)])
        else:
            return None
        if not np.isfinite(box).all() or (box[1] <= box[0]).any():
            raise ValueError
        return box
    except (KeyError, TypeError, ValueError):
        raise DataError(f"{path}: room_bbox or bounding_boxes are no boxes") from None


def _corners(box: dict[str, Any]) -> np.ndarray:
    """(8, 3) corners of a rotated box."""
    extents = np.asarray(box["extents"], dtype=np.float64).reshape(3)
    turn = np.asarray(box.get("orientation", np.eye(3)), dtype=np.float64).reshape(3, 3)
    unit = np.array([[x, y, z] for x in (-0.5, 0.5) for y in (-0.5, 0.5) for z in (-0.5, 0.5)])
    return unit * extents @ turn.T + np.asarray(box["position"], dtype=np.float64).reshape(3)
