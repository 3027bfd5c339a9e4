"""Images with known cameras, to which a radiance field is fitted.

Letters: V images of H x W pixels, R rays.
"""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from mimsuite.data.array_files import npz_names, read_npz
from mimsuite.data.decoder import Decoder
from mimsuite.data.image.decode import ImageDecoder
from mimsuite.data.unused import Unused
from mimsuite.errors import CorruptSample, DataError
from mimsuite.fields.cameras import Camera, read_cameras
from mimsuite.fields.lens import Lens

_MOST_BYTES = 1 << 29
_FOV = 45.0  # default angle of view of .npz files, in degrees


@dataclass(frozen=True)
class Posed:
    """Images on a plain background, and their cameras.

    Attributes:
        rgb: (V, H, W, 3) float32 in [0, 1].
        poses: (V, 3, 4) float32, camera to world, OpenGL convention.
        lenses: V lenses for images of this size.
        background: grey level of empty space: 1 white, 0 black.
        unused: content of the files that is not used.
    """

    rgb: Tensor
    poses: Tensor
    lenses: Sequence[Lens]
    background: float = 1.0
    unused: Unused = field(default_factory=Unused)

    def part(self, views: Sequence[int]) -> Posed:
        """The images ``views`` and their cameras."""
        rows = list(views)
        lenses = [self.lenses[view] for view in rows]
        return replace(self, rgb=self.rgb[rows], poses=self.poses[rows], lenses=lenses)

    def rays(self, view: int | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Origins, unit directions and colours, (R, 3) each, of all pixels or those of a view."""
        if view is not None:
            return self.part([view]).rays()
        # Equal lenses are computed once.
        known = {lens: lens.directions().view(1, -1, 3) for lens in dict.fromkeys(self.lenses)}
        axes = torch.cat([known[lens] for lens in self.lenses])  # (V, H W, 3)
        directions = axes @ self.poses[:, :, :3].transpose(1, 2)
        directions = torch.nn.functional.normalize(directions, dim=-1)
        origins = self.poses[:, None, :, 3].expand_as(directions)
        return origins.reshape(-1, 3), directions.reshape(-1, 3), self.rgb.reshape(-1, 3)


def read_posed(path: Path, name: str | None = None, background: float = 1.0) -> Posed:
    """Read images with cameras.

    Args:
        path: a ``transforms.json`` next to its images, its folder, or an ``.npz`` with ``rgb``
            (V, H, W, 3) uint8, ``c2w`` (V, 4, 4) and optionally ``fov_deg``. If the file has
            several scenes, these names have the prefix ``NAME/``.
        name: the scene of such a file; None: its only scene.
        background: grey level behind transparent pixels and in empty space.

    Raises:
        DataError: the files cannot be used; the message names the culprit.
    """
    if path.suffix == ".npz":
        return _of_npz(path, name, background)
    return _of_transforms(path, background)


def scenes_in(path: Path) -> list[str]:
    """Names of the scenes of an ``.npz`` file; ``[""]`` for a single unnamed scene."""
    try:
        names = npz_names(path.read_bytes())
    except (OSError, CorruptSample) as error:
        raise DataError(f"{path}: {error}") from None
    return sorted(n.removesuffix("rgb").removesuffix("/") for n in names if _last(n) == "rgb")


def _last(name: str) -> str:
    return name.rpartition("/")[2]


def _of_npz(path: Path, name: str | None, background: float) -> Posed:
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
    height, width = rgb.shape[1:3]
    focal = width / 2 / math.tan(math.radians(float(np.ravel(fov)[0])) / 2)
    lens = Lens((height, width), (focal, focal), (width / 2, height / 2))
    matrices = torch.from_numpy(poses[:, :3].astype(np.float32))
    unused = Unused()
    others = {_last(key) for key in arrays if key.startswith(start)} - {"rgb", "c2w", "fov_deg"}
    unused.add("arrays of the file", sorted(others))
    return Posed(pixels, matrices, [lens] * len(rgb), background, unused)


def _shapes(count: int) -> tuple[tuple[int, ...], ...]:
    return (count, 4, 4), (count, 3, 4)


def _of_transforms(path: Path, background: float) -> Posed:
    cameras = read_cameras(path)
    decode, pictures = ImageDecoder("rgba"), []
    for camera in cameras:
        if camera.image is None:
            raise DataError(f"{path}: a frame has no file_path")
        pictures.append(_picture(camera.image, decode, background))
    sizes = {tuple(picture.shape) for picture in pictures}
    if len(sizes) > 1:
        raise DataError(f"{path}: pictures of several sizes; resize them to one")
    rgb = torch.stack(pictures).permute(0, 2, 3, 1)
    lenses = [_fitting(path, camera, rgb.shape[1:3]) for camera in cameras]
    poses = np.stack([camera.pose for camera in cameras]).astype(np.float32)
    return Posed(rgb, torch.from_numpy(poses), lenses, background, cameras.unused)


def _fitting(path: Path, camera: Camera, size: Sequence[int]) -> Lens:
    """The lens for images of size (height, width); it must have a direction for every pixel."""
    if camera.lens is None:
        raise DataError(f"{path}: no focal length (fl_x or camera_angle_x)")
    height, width = size
    try:
        lens = camera.lens.resized((height, width))
    except ValueError:
        there = f"{camera.lens.size[1]} x {camera.lens.size[0]}"
        raise DataError(
            f"{camera.image}: {width} x {height} pixels, but its camera has w x h of {there}"
        ) from None
    try:
        lens.directions()
    except ValueError:
        raise DataError(
            f"{path}: the distortion of {camera.image} cannot be undone for all of the picture; "
            "undistort or crop the pictures first"
        ) from None
    return lens


def _picture(path: Path, decode: Decoder, background: float) -> Tensor:
    """(3, H, W) float32 image in [0, 1], composited on the background."""
    try:
        pixels = decode(path.read_bytes()).float() / 255
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from None
    except CorruptSample as error:
        raise DataError(f"{path}: {error}") from None
    return pixels[:3] * pixels[3:] + background * (1 - pixels[3:])


def png(pixels: Tensor) -> bytes:
    """Encode an image (H, W, 3) in [0, 1] as PNG."""
    stream = io.BytesIO()
    array = (pixels.clamp(0, 1) * 255).round().to(torch.uint8).numpy()
    Image.fromarray(array).save(stream, "PNG")
    return stream.getvalue()
