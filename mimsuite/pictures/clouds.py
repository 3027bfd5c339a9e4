"""Pictures of point clouds without a display: discs drawn from back to front, in NumPy.

The camera looks down slightly from a corner; y is up. Nearer points are lighter and cover those
behind them.

Letters: N points, S side of the picture in pixels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

SIDE = 224
_TURN, _TILT = np.radians(35), np.radians(25)
# Lengths are fractions of the picture's side.
_MARGIN = 0.46  # distance of the reference's farthest point from the middle
_SMALLEST, _LARGEST = 0.007, 0.014  # limits of a disc's radius
_SPREAD = 0.3  # radius of a disc times the root of the number of points, before the limits
_DARK, _LIGHT = 0.45, 1.0  # brightness at the far and at the near end
_PLAIN = np.array([66, 120, 196], dtype=np.float64)  # blue
_MARKED = np.array([226, 122, 46], dtype=np.float64)  # orange


def draw_clouds(clouds: Tensor, reference: Tensor, marked: int = 0) -> Tensor:
    """(B, 3, S, S) float32 pictures in [0, 1], on the CPU.

    Args:
        clouds: (B, N, 3).
        reference: (B, n, 3) clouds that set the frame, so that pictures of parts are comparable.
        marked: number of points at the end of each cloud that are drawn in another colour.
    """
    import torch

    pictures = []
    for cloud, frame in zip(clouds, reference, strict=True):
        points, whole = (x.detach().float().cpu().numpy() for x in (cloud, frame))
        pictures.append(splat(points, whole, marked))
    drawn = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2)
    return drawn.contiguous().float() / 255


def splat(
    points: np.ndarray,
    reference: np.ndarray,
    marked: int = 0,
    side: int = SIDE,
    colours: np.ndarray | None = None,
) -> np.ndarray:
    """(S, S, 3) uint8 picture of (N, 3) points on white; non-finite points are left out.

    Args:
        reference: (n, 3) points that set the frame.
        marked: number of points at the end that are drawn in another colour.
        colours: (N, 3) colours of the points in [0, 1]; ``None``: one colour for all.
    """
    if colours is None:
        colours = np.broadcast_to(_PLAIN, (len(points), 3)).copy()
        colours[len(points) - marked :] = _MARKED
    else:
        colours = colours.astype(np.float64) * 255
    finite = np.isfinite(points).all(axis=1)
    points, colours = points[finite].astype(np.float64), colours[finite]
    frame = reference[np.isfinite(reference).all(axis=1)].astype(np.float64)
    canvas = np.full((side * side, 3), 255, dtype=np.uint8)
    if not len(points) or not len(frame):
        return canvas.reshape(side, side, 3)
    middle = (frame.min(axis=0) + frame.max(axis=0)) / 2
    size = max(float(np.linalg.norm(frame - middle, axis=1).max()), 1e-12)
    x, y, depth = _seen((points - middle) / size)
    near = np.clip((depth + 1) / 2, 0, 1)
    shade = (_DARK + (_LIGHT - _DARK) * near)[:, None]
    colours = np.clip(colours * shade, 0, 255).astype(np.uint8)
    columns = np.round(side * (0.5 + _MARGIN * x)).astype(np.int64)
    rows = np.round(side * (0.5 - _MARGIN * y)).astype(np.int64)
    radius = float(np.clip(_SPREAD / np.sqrt(len(frame)), _SMALLEST, _LARGEST))
    right, down = _disc(max(1, round(side * radius)))
    columns = (columns[:, None] + right).ravel()
    rows = (rows[:, None] + down).ravel()
    inside = (columns >= 0) & (columns < side) & (rows >= 0) & (rows < side)
    pixels = (rows * side + columns)[inside]
    which = np.repeat(np.arange(len(points)), len(right))[inside]
    order = np.argsort(depth[which], kind="stable")  # the nearest are written last
    canvas[pixels[order]] = colours[which[order]]
    return canvas.reshape(side, side, 3)


def _seen(points: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Camera coordinates (right, up, towards the camera) of (N, 3) points in the unit ball."""
    x = points[:, 0] * np.cos(_TURN) - points[:, 2] * np.sin(_TURN)
    forward = points[:, 0] * np.sin(_TURN) + points[:, 2] * np.cos(_TURN)
    y = points[:, 1] * np.cos(_TILT) - forward * np.sin(_TILT)
    return x, y, points[:, 1] * np.sin(_TILT) + forward * np.cos(_TILT)


def _disc(radius: int) -> tuple[np.ndarray, np.ndarray]:
    """Pixel offsets of a disc: columns, rows."""
    span = np.arange(-radius, radius + 1)
    down, right = np.meshgrid(span, span, indexing="ij")
    inside = right**2 + down**2 <= radius**2
    return right[inside], down[inside]
