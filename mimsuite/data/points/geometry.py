"""Geometric transforms of point clouds: (N, 3) float32 in, a new tensor of the same shape out."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def normalize(points: Tensor) -> Tensor:
    """Move the centroid to the origin and scale the farthest point to distance 1.

    Raises:
        ValueError: all points are equal.
    """
    centred = points - points.mean(dim=0)
    radius = centred.square().sum(dim=1).max().sqrt()
    if not radius > 0:
        raise ValueError("all points are equal")
    return centred / radius


def scale_translate(points: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """Multiply by ``scale``, then add ``shift``; (3,) each."""
    return points * scale + shift


def rotate_y(points: Tensor, angle: float) -> Tensor:
    """Rotate by ``angle`` radians about y, the vertical: rows times ``[c 0 s; 0 1 0; -s 0 c]``."""
    cosine, sine = math.cos(angle), math.sin(angle)
    turn = [[cosine, 0.0, sine], [0.0, 1.0, 0.0], [-sine, 0.0, cosine]]
    return points @ points.new_tensor(turn)


def rotate(points: Tensor, angles: Tensor) -> Tensor:
    """Rotate about x, then y, then z, by (3,) radians."""
    (cx, cy, cz), (sx, sy, sz) = angles.cos().tolist(), angles.sin().tolist()
    about_x = points.new_tensor([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    about_y = points.new_tensor([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    about_z = points.new_tensor([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
    return points @ (about_z @ about_y @ about_x).T


def drop_points(points: Tensor, dropped: Tensor) -> Tensor:
    """Replace the points where (N,) bool ``dropped`` is True by the first point."""
    return torch.where(dropped[:, None], points[:1], points)
