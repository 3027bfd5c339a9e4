"""From pixels to rays and back: focal lengths, principal point and the distortion of a lens.

Camera axes are those of OpenGL: x to the right, y up, looking along -z. Distortion is that of
OpenCV: radial ``k1 k2 k3`` and tangential ``p1 p2``, or ``k1 ... k4`` of a fisheye's angle.

Letters: N points, H x W pixels.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

_STEPS = 30  # of Newton's method; a usable lens needs about five
_CLOSE = 0.05  # pixels by which a ray may miss its pixel
_NUDGE = 1e-5


@dataclass(frozen=True)
class Lens:
    """How a camera maps directions to the pixels of pictures of one size.

    Attributes:
        size: (height, width) in pixels.
        focal: (x, y) focal lengths in pixels.
        centre: (x, y) of the principal point in pixels, from the picture's upper left corner.
        radial: ``k1 ... k4``; those of ``fisheye`` belong to the angle.
        tangential: ``p1, p2``; not with ``fisheye``.
        fisheye: whether the distance from the principal point follows the angle to the axis, not
            its tangent.
    """

    size: tuple[int, int]
    focal: tuple[float, float]
    centre: tuple[float, float]
    radial: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)
    tangential: tuple[float, float] = (0.0, 0.0)
    fisheye: bool = False

    def resized(self, size: tuple[int, int]) -> Lens:
        """The same lens for smaller or larger copies of its pictures.

        Raises:
            ValueError: they are not of the same shape, to a pixel.
        """
        across, down = size[1] / self.size[1], size[0] / self.size[0]
        # Sides of smaller copies are rounded: off by less than one of their pixels.
        if abs(across - down) * max(self.size) * min(1, 1 / max(across, down)) > 0.999:
            raise ValueError
        return replace(
            self,
            size=size,
            focal=(self.focal[0] * across, self.focal[1] * down),
            centre=(self.centre[0] * across, self.centre[1] * down),
        )

    def directions(self) -> Tensor:
        """(H, W, 3) float32 unit vectors from the camera through the middles of the pixels.

        Raises:
            ValueError: the distortion maps no direction to some of the pixels.
        """
        height, width = self.size
        y, x = torch.meshgrid(
            torch.arange(height, dtype=torch.float64) + 0.5,
            torch.arange(width, dtype=torch.float64) + 0.5,
            indexing="ij",
        )
        return self._directions(x.flatten(), y.flatten()).view(height, width, 3).float()

    def pixels(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """(N, 3) points in camera axes -> (N, 2) pixels (x, y), and (N,) whether it shows them."""
        depth = -points[:, 2]
        across = torch.stack([points[:, 0], -points[:, 1]], dim=1)
        if self.fisheye:
            away = across.norm(dim=1).clamp_min(1e-12)
            angle = torch.atan2(away, depth)
            shown = angle <= self._reach
            bent = across * (self._bend_angle(angle) / away)[:, None]
        else:
            plane = across / depth.clamp_min(1e-9)[:, None]
            # Beyond what its pictures show, polynomials of a lens come back into the picture.
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
        """The largest angle, or tangent of it, that a corner shows."""
        if self._straight:
            return math.inf
        height, width = self.size
        corners = torch.tensor([[x, y] for x in (0, width) for y in (0, height)]).double()
        rays = self._directions(corners[:, 0], corners[:, 1])
        away = rays[:, :2].norm(dim=1)
        found = torch.atan2(away, -rays[:, 2]) if self.fisheye else away / -rays[:, 2]
        return float(found.max()) * (1 + 1e-6)

    def _directions(self, x: Tensor, y: Tensor) -> Tensor:
        """(N, 3) float64 unit vectors through pixels (N,), (N,)."""
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
        """(N, 2) where a straight lens would show directions -> (N, 2) where this one does."""
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
        """(N, D) what ``bend`` maps to ``wanted``, by Newton's method; ValueError where nothing."""
        found = wanted.clone()
        for _ in range(_STEPS):
            columns = []
            for step in torch.eye(wanted.shape[1], dtype=wanted.dtype) * _NUDGE:
                columns.append((bend(found + step) - bend(found - step)) / (2 * _NUDGE))
            slopes = torch.stack(columns, dim=2)  # (N, D, D)
            if not bool((torch.linalg.det(slopes) > 0).all()):
                raise ValueError  # past the fold of the polynomial: two directions share a pixel
            found = found - torch.linalg.solve(slopes, (bend(found) - wanted)[:, :, None])[:, :, 0]
        missed = (bend(found) - wanted).abs().max() * max(self.focal)
        if not bool(missed < _CLOSE):
            raise ValueError
        return found
