"""Pictures with known cameras: what a radiance field is fitted to.

Letters: V pictures of H x W pixels, R rays.
"""

from __future__ import annotations

import io
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from mimsuite.data.decode import Decoder
from mimsuite.errors import CorruptSample, DataError
from mimsuite.fields.cameras import read_cameras
from mimsuite.formats.arrays import npz_names, read_npz

_MOST_BYTES = 1 << 29
_FOV = 45.0  # degrees, of .npz files that name none


@dataclass(frozen=True)
class Posed:
    """Pictures on white, and their cameras.

    Attributes:
        rgb: (V, H, W, 3) float32 in [0, 1].
        poses: (V, 3, 4) float32, camera to world, OpenGL convention.
        focal: in pixels, of square pixels with the axis in the middle.
    """

    rgb: Tensor
    poses: Tensor
    focal: float

    def rays(self, view: int | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """((R, 3) origins, (R, 3) unit directions, (R, 3) colours) of all pixels or of a view's."""
        chosen = slice(None) if view is None else slice(view, view + 1)
        rgb, poses = self.rgb[chosen], self.poses[chosen]
        _, height, width, _ = rgb.shape
        y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
        across = (x + 0.5 - width / 2) / self.focal
        down = (y + 0.5 - height / 2) / self.focal
        axes = torch.stack([across, -down, -torch.ones_like(across)], dim=-1).view(1, -1, 3)
        directions = torch.nn.functional.normalize(axes @ poses[:, :, :3].transpose(1, 2), dim=-1)
        origins = poses[:, None, :, 3].expand_as(directions)
        return origins.reshape(-1, 3), directions.reshape(-1, 3), rgb.reshape(-1, 3)


def read_posed(path: Path, name: str | None = None) -> Posed:
    """Read posed pictures.

    Args:
        path: ``transforms.json`` beside its pictures, or an ``.npz`` with ``rgb`` (V, H, W, 3)
            uint8, ``c2w`` (V, 4, 4) and, where given, ``fov_deg`` and ``mask``; several
            scenes in one file have ``NAME/`` before these.
        name: which scene of such a file; None: its only one.

    Raises:
        DataError: nothing usable there; names the culprit.
    """
    return _of_npz(path, name) if path.suffix == ".npz" else _of_transforms(path)


def scenes_in(path: Path) -> list[str]:
    """Names of the scenes of an ``.npz`` file; ``[""]`` for a single one without a name."""
    try:
        names = npz_names(path.read_bytes())
    except (OSError, CorruptSample) as error:
        raise DataError(f"{path}: {error}") from None
    return sorted(n.removesuffix("rgb").removesuffix("/") for n in names if _last(n) == "rgb")


def _last(name: str) -> str:
    return name.rpartition("/")[2]


def _of_npz(path: Path, name: str | None) -> Posed:
    scenes = scenes_in(path)
    if name is None and len(scenes) == 1:
        name = scenes[0]
    if name not in scenes:
        raise DataError(f"{path} holds {', '.join(scenes) or 'no rgb'}: name one with --scene")
    start = f"{name}/" if name else ""
    try:
        arrays = read_npz(path.read_bytes(), "fiubU", _MOST_BYTES)
        rgb, poses = arrays[f"{start}rgb"], arrays[f"{start}c2w"]
    except (KeyError, CorruptSample) as error:
        raise DataError(
            f"{path}: {start}rgb or {start}c2w is missing or damaged: {error}"
        ) from None
    if rgb.ndim != 4 or rgb.shape[3] != 3 or poses.shape not in _shapes(len(rgb)):
        raise DataError(f"{path}: rgb {rgb.shape} and c2w {poses.shape} do not fit together")
    fov = next((arrays[n] for n in (f"{start}fov_deg", "fov_deg") if n in arrays), np.float64(_FOV))
    pixels = torch.from_numpy(rgb).float() / (255 if rgb.dtype == np.uint8 else 1)
    focal = rgb.shape[2] / 2 / math.tan(math.radians(float(np.ravel(fov)[0])) / 2)
    return Posed(pixels, torch.from_numpy(poses[:, :3].astype(np.float32)), focal)


def _shapes(count: int) -> tuple[tuple[int, ...], ...]:
    return (count, 4, 4), (count, 3, 4)


def _of_transforms(path: Path) -> Posed:
    if path.is_dir():
        path = path / "transforms.json"
    cameras = read_cameras(path)
    decode, pictures = Decoder("rgb"), []
    for camera in cameras:
        if camera.image is None:
            raise DataError(f"{path}: a frame has no file_path")
        pictures.append(_picture(camera.image, decode))
    sizes = {tuple(picture.shape) for picture in pictures}
    if len(sizes) > 1:
        raise DataError(f"{path}: pictures of several sizes; resize them to one")
    rgb = torch.stack(pictures).permute(0, 2, 3, 1).float() / 255
    first = next(iter(cameras))
    if first.focal is None:
        raise DataError(f"{path}: neither fl_x nor camera_angle_x with w and h")
    width = first.size[1] if first.size else rgb.shape[2]
    poses = np.stack([camera.pose for camera in cameras]).astype(np.float32)
    return Posed(rgb, torch.from_numpy(poses), first.focal[0] * rgb.shape[2] / width)


def _picture(path: Path, decode: Decoder) -> Tensor:
    """(3, H, W) uint8 on white; names without an ending are PNG, as in Blender's scenes."""
    if not path.suffix:
        path = path.with_suffix(".png")
    try:
        return decode(path.read_bytes())
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from None
    except CorruptSample as error:
        raise DataError(f"{path}: {error}") from None


def png(pixels: Tensor) -> bytes:
    """(H, W, 3) in [0, 1] as a PNG."""
    stream = io.BytesIO()
    array = (pixels.clamp(0, 1) * 255).round().to(torch.uint8).numpy()
    Image.fromarray(array).save(stream, "PNG")
    return stream.getvalue()
