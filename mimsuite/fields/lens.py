"""Mapping between pixels and rays: focal lengths, principal point and lens distortion.

Camera axes follow OpenGL: x right, y up, looking along -z. Distortion follows OpenCV: radial
``k1 k2 k3`` and tangential ``p1 p2``, or ``k1 ... k4`` of the angle for a fisheye lens.

Letters: N points, H x W pixels.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

_STEPS = 30  # steps of Newton's method; a usable lens needs about five
_CLOSE = 0.05  # largest error in pixels
_NUDGE = 1e-5  # step of the finite differences


@dataclass(frozen=True)
class Lens:
    """Mapping of directions to pixels, for images of one size.

    Attributes:
        size: (height, width) in pixels.
        focal: (x, y) focal lengths in pixels.
        centre: (x, y) of the principal point in pixels, from the upper left corner of the image.
        radial: ``k1 ... k4``; with ``fisheye`` they apply to the angle.
        tangential: ``p1, p2``; not with ``fisheye``.
        fisheye: whether the distance from the principal point is a function of the angle to the
            optical axis instead of its tangent.
    """

    size: tuple[int, int]
    focal: tuple[float, float]
    centre: tuple[float, float]
    radial: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)
    tangential: tuple[float, float] = (0.0, 0.0)
    fisheye: bool = False

    def resized(self, size: tuple[int, int]) -> Lens:
        """The same lens for smaller or larger copies of its images.

        Raises:
            ValueError: the aspect ratio differs by more than rounding to pixels.
        """
        across, down = size[1] / self.size[1], size[0] / self.size[0]
        # Sides of smaller copies are rounded, which is an error of less than one of their pixels.
        if abs(across - down) * max(self.size) * min(1, 1 / max(across, down)) > 0.999:
            raise ValueError
        return replace(
            self,
            size=size,
            focal=(self.focal[0] * across, self.focal[1] * down),
            centre=(self.centre[0] * across, self.centre[1] * down),
        )

    def directions(self) -> Tensor:
        """(H, W, 3) float32 unit vectors from the camera through the pixel centres.

        Raises:
            ValueError: some pixels have no direction under the distortion.
        """
        height, width = self.size
        y, x = torch.meshgrid(
            torch.arange(height, dtype=torch.float64) + 0.5,
            torch.arange(width, dtype=torch.float64) + 0.5,
            indexing="ij",
        )
        return self._directions(x.flatten(), y.flatten()).view(height, width, 3).float()

    def pixels(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Points (N, 3) in camera axes -> pixels (x, y) (N, 2), and bool (N,): inside the image."""
        depth = -points[:, 2]
        across = torch.stack([points[:, 0], -points[:, 1]], dim=1)
        if self.fisheye:
            away = across.norm(dim=1).clamp_min(1e-12)
            angle = torch.atan2(away, depth)
            shown = angle <= self._reach
            bent = across * (self._bend_angle(angle) / away)[:, None]
        else:
            plane = across / depth.clamp_min(1e-9)[:, None]
            # Outside the field of view, the distortion polynomial can map back into the image.
            shown = (depth > 0) & (plane.norm(dim=1) <= self._reach)
            bent = self._bend(plane)
        at = bent * points.new_tensor(self.focal) + points.new_tensor(self.centre)
        inside = (at >= 0).all(1) & (at < at.new_tensor([self.size[1], self.size[0]])).all(1)
        return at, shown & inside

    @cached_property
    def _straight(self) -> bool:
        return not (any(self.radial) or any(self.tangential) or self.fisheye)

    @cached_property
    def _reach(self) -> float:
        """The largest angle (fisheye) or tangent of an angle at a corner of the image."""
        if self._straight:
            return math.inf
        height, width = self.size
        corners = torch.tensor([[x, y] for x in (0, width) for y in (0, height)]).double()
        rays = self._directions(corners[:, 0], corners[:, 1])
        away = rays[:, :2].norm(dim=1)
        reach = torch.atan2(away, -rays[:, 2]) if self.fisheye else away / -rays[:, 2]
        return float(reach.max()) * (1 + 1e-6)

    def _directions(self, x: Tensor, y: Tensor) -> Tensor:
        """(N, 3) float64 unit vectors through pixels x (N,), y (N,)."""
        bent = torch.stack(
            [(x - self.centre[0]) / self.focal[0], (y - self.centre[1]) / self.focal[1]], dim=1
        )
        if self.fisheye:
            away = bent.norm(dim=1, keepdim=True)
            angle = self._solved(self._bend_angle, away)
            if bool((angle > math.pi).any()):
                raise ValueError
            plane, depth = bent / away.clamp_min(1e-12) * angle.sin(), angle.cos()
        else:
            plane = bent if self._straight else self._solved(self._bend, bent)
            depth = torch.ones_like(plane[:, :1])
        rays = torch.cat([plane[:, :1], -plane[:, 1:], -depth], dim=1)
        return torch.nn.functional.normalize(rays, dim=1)

    def _bend(self, plane: Tensor) -> Tensor:
        """Undistorted (N, 2) -> distorted (N, 2) coordinates on the image plane."""
        k1, k2, k3, _ = self.radial
        p1, p2 = self.tangential
        x, y = plane.unbind(1)
        square = x * x + y * y
        grow = 1 + square * (k1 + square * (k2 + square * k3))
        return torch.stack(
            [
                grow * x + 2 * p1 * x * y + p2 * (square + 2 * x * x),
                grow * y + 2 * p2 * x * y + p1 * (square + 2 * y * y),
            ],
            dim=1,
        )

    def _bend_angle(self, angle: Tensor) -> Tensor:
        """Angles from the axis -> distances from the principal point, in focal lengths."""
        k1, k2, k3, k4 = self.radial
        square = angle * angle
        return angle * (1 + square * (k1 + square * (k2 + square * (k3 + square * k4))))

    def _solved(self, bend: Callable[[Tensor], Tensor], wanted: Tensor) -> Tensor:
        """(N, D) input that ``bend`` maps to ``wanted``, by Newton's method; else ValueError."""
        guess = wanted.clone()
        for _ in range(_STEPS):
            columns = []
            for step in torch.eye(wanted.shape[1], dtype=wanted.dtype) * _NUDGE:
                columns.append((bend(guess + step) - bend(guess - step)) / (2 * _NUDGE))
            slopes = torch.stack(columns, dim=2)  # (N, D, D)
            if not bool((torch.linalg.det(slopes) > 0).all()):
                raise ValueError  # past the fold of the polynomial: two directions share a pixel
            guess = guess - torch.linalg.solve(slopes, (bend(guess) - wanted)[:, :, None])[:, :, 0]
        missed = (bend(guess) - wanted).abs().max() * max(self.focal)
        if not bool(missed < _CLOSE):
            raise ValueError
        return guess
