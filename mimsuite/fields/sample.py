"""Sampling of a radiance field on a grid, in the layout of NeRF-MAE and NeRF-RPN.

A field is two functions: density at points, and colour at points for viewing directions. Colour is
averaged over the viewing directions of the scene's cameras, so that a voxel has a single colour.
Density does not depend on the direction.

Letters: N points, (X, Y, Z) voxels, z up.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from mimsuite.errors import DataError, UserError
from mimsuite.fields.cameras import Camera, Cameras
from mimsuite.files import write_atomic
from mimsuite.targets.radiance import opacity

Density = Callable[[Tensor], Tensor]  # (N, 3) -> (N,) >= 0, per unit of length
Colour = Callable[[Tensor, Tensor], Tensor]  # (N, 3) points, (N, 3) unit directions -> (N, 3)
Directions = Literal["cameras", "frustum", "fixed18"]

_LEAST = 1e-30  # smallest density, so that its logarithm is finite
_SEEN = 1e-4  # opacity below which colour is not sampled


@dataclass(frozen=True)
class Grid:
    """A sampled field.

    Attributes:
        values: (X, Y, Z, 4) float32: colour in [0, 1], and density of ``density_kind``.
        box: (2, 3) lower and upper corner; samples include both.
        density_kind: ``log``, ``linear`` or ``alpha``.
        delta: length over which light is absorbed, in units of the field.
        facts: further entries of the file, such as ``source``.
    """

    values: np.ndarray
    box: np.ndarray
    density_kind: str
    delta: float
    facts: dict[str, str] = field(default_factory=dict)

    def save(self, path: Path) -> None:
        """Write an ``.npz`` that published loaders can read."""
        resolution = np.array(self.values.shape[:3])
        arrays: dict[str, Any] = {
            "rgbsigma": self.values,
            "resolution": resolution,
            "bbox_min": self.box[0].astype(np.float32),
            "bbox_max": self.box[1].astype(np.float32),
            "scale": np.float32(1),
            "offset": np.zeros(3, np.float32),
            "from_mitsuba": np.bool_(False),
            "density_kind": np.str_(self.density_kind),
            "delta": np.float32(self.delta),
            "voxel_size": ((self.box[1] - self.box[0]) / (resolution - 1)).astype(np.float32),
            "up": np.str_("z"),
            "schema": np.int64(1),
            **{name: np.str_(value) for name, value in self.facts.items()},
        }
        stream = io.BytesIO()
        np.savez_compressed(stream, **arrays)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, stream.getvalue())


def export_grid(
    density_fn: Density,
    rgb_fn: Colour,
    cameras: Cameras,
    *,
    bbox: np.ndarray | None = None,
    margin: float = 0.1,
    max_res: int = 160,
    resolution: Sequence[int] | None = None,
    dirs: Directions = "cameras",
    max_views: int = 64,
    delta: float = 0.01,
    chunk: int = 1 << 18,
    store: Literal["log", "linear", "alpha"] = "log",
    rgb_everywhere: bool = False,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Grid:
    """Sample a field.

    Args:
        density_fn, rgb_fn: the field; called without gradient, with at most ``chunk`` points.
        cameras: cameras of its images, in the field's coordinates.
        bbox: (2, 3) box to sample; None: see :func:`region`.
        margin: enlargement of the default box on each side, as a fraction of its extent.
        max_res: voxels along the longest side; the other sides are in proportion, rounded to even.
        resolution: (X, Y, Z), overrides ``max_res``.
        dirs: directions over which colour is averaged. ``cameras``: the optical axes of at most
            ``max_views`` cameras; ``frustum``: of those cameras whose image shows the point;
            ``fixed18``: 18 fixed directions.
        delta: see :class:`Grid`.
        store: kind of the density channel.
        rgb_everywhere: sample colour in empty voxels too; otherwise it is 0 there.

    Raises:
        DataError: the field returns other shapes or non-finite numbers, or the box is empty.
    """
    box = region(cameras, margin) if bbox is None else np.asarray(bbox, dtype=np.float64)
    if box.shape != (2, 3) or not np.isfinite(box).all() or (box[1] <= box[0]).any():
        raise DataError(f"the box to sample is empty: {box.tolist()}; give --bbox")
    sides = tuple(resolution) if resolution is not None else sides_of(box, max_res)
    points = grid_points(box, sides)
    with torch.no_grad():
        density = _in_chunks(lambda p: _checked(density_fn(p), (len(p),), "density"), points, chunk)
        alpha = opacity(density, "linear", delta)
        asked = torch.ones_like(alpha, dtype=torch.bool) if rgb_everywhere else alpha > _SEEN
        views = _directions(dirs, cameras, max_views)
        colour = torch.zeros(len(points), 3)
        visible = points[asked]
        mean = _Mean(rgb_fn, views, dirs == "frustum")
        colour[asked] = _in_chunks(mean, visible, max(1, chunk // max(1, len(views))), progress)
    kinds = {"linear": density, "alpha": alpha, "log": density.clamp_min(_LEAST).log()}
    values = torch.cat([colour.clamp(0, 1), kinds[store][:, None]], dim=1).view(*sides, 4)
    return Grid(values.numpy().astype(np.float32), box, store, delta)


def region(cameras: Cameras, margin: float) -> np.ndarray:
    """(2, 3) box of the room or its objects, else of the camera centres, enlarged by ``margin``."""
    if cameras.box is not None:
        box = cameras.box
    else:
        centres = cameras.centres()
        box = np.stack([centres.min(0), centres.max(0)])
    extent = box[1] - box[0]
    return np.stack([box[0] - margin * extent, box[1] + margin * extent])


def sides_of(box: np.ndarray, max_res: int) -> tuple[int, int, int]:
    """(X, Y, Z) in proportion to the extent, the longest ``max_res``; odd numbers rounded up."""
    extent = box[1] - box[0]
    sides = np.floor(extent / extent.max() * max_res).astype(int).clip(2, max_res)
    x, y, z = (int(side + side % 2) for side in sides)
    return x, y, z


def grid_points(box: np.ndarray, sides: Sequence[int]) -> Tensor:
    """(X Y Z, 3) float32 points in raster order; both ends of each axis are included."""
    axes = [torch.linspace(float(a), float(b), n) for a, b, n in zip(*box, sides, strict=True)]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).view(-1, 3)


class _Mean:
    """Colour averaged over views, with one call of the field per view."""

    def __init__(self, rgb_fn: Colour, views: list[tuple[Tensor, Camera | None]], seen: bool):
        self.rgb_fn, self.views, self.seen = rgb_fn, views, seen

    def __call__(self, points: Tensor) -> Tensor:
        total, weight = torch.zeros(len(points), 3), torch.zeros(len(points), 1)
        everyone = torch.zeros(len(points), 3)
        for direction, camera in self.views:
            answer = self.rgb_fn(points, direction.expand(len(points), 3))
            colour = _checked(answer, (len(points), 3), "colour")
            everyone += colour
            if self.seen and camera is not None:
                shown = in_picture(points, camera)[:, None].float()
                total, weight = total + shown * colour, weight + shown
        mean = everyone / len(self.views)
        # Points that no image shows get the mean over all views.
        return torch.where(weight > 0, total / weight.clamp_min(1), mean) if self.seen else mean


def in_picture(points: Tensor, camera: Camera) -> Tensor:
    """(N,) bool: whether a point is inside the camera's image.

    Raises:
        UserError: the camera has no focal length or image size.
    """
    if camera.lens is None:
        raise UserError(
            "--dirs frustum needs the cameras' fl_x (or camera_angle_x), and w and h or pictures"
        )
    pose = torch.from_numpy(camera.pose).float()
    shown: Tensor = camera.lens.pixels((points - pose[:, 3]) @ pose[:, :3])[1]
    return shown


def _directions(
    kind: Directions, cameras: Cameras, most: int
) -> list[tuple[Tensor, Camera | None]]:
    if kind == "fixed18":
        angles = [(pitch, yaw) for pitch in (-45, 0, 45) for yaw in range(0, 360, 60)]
        p, y = np.radians(np.array(angles)).T
        vectors = np.stack([np.cos(p) * np.cos(y), np.cos(p) * np.sin(y), np.sin(p)], axis=1)
        return [(torch.from_numpy(vector).float(), None) for vector in vectors]
    return [(torch.from_numpy(camera.direction).float(), camera) for camera in cameras.spread(most)]


def _checked(answer: Any, shape: tuple[int, ...], what: str) -> Tensor:
    if not isinstance(answer, Tensor) or tuple(answer.shape) != shape:
        got = tuple(answer.shape) if isinstance(answer, Tensor) else type(answer).__name__
        raise DataError(f"the field's {what} for {shape[0]} points is {got}, expected {shape}")
    answer = answer.detach().float().cpu()
    if not bool(torch.isfinite(answer).all()):
        raise DataError(f"the field's {what} is not finite somewhere")
    return answer


def _in_chunks(
    ask: Callable[[Tensor], Tensor],
    points: Tensor,
    chunk: int,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Tensor:
    answers = []
    for start in range(0, len(points), chunk):
        answers.append(ask(points[start : start + chunk]))
        progress(min(start + chunk, len(points)), len(points))
    return torch.cat(answers) if answers else ask(points)
