"""A radiance field stored as a grid: small, fast on a CPU, and sufficient as input of NeRF-MAE.

Density and colour are interpolated trilinearly. Images are rendered by emission and absorption
along rays (Mildenhall et al., arXiv:2003.08934, section 4; a grid in place of the network as in Yu
et al., arXiv:2112.05131). Colour does not depend on the direction.

Letters: N points, R rays, S samples of a ray.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mimsuite.fields.posed import Posed
from mimsuite.noise import key_of

_START = -2.0  # raw density of empty space
_BETTER, _CLEARLY = 1.0, 3.0  # dB over a blank image; fits of small scenes reach 10 and more
_HELD = 8  # every eighth image is held out


class GridNeRF(nn.Module):
    """Raw values on a cube of ``side`` points per side, from -``radius`` to ``radius``."""

    def __init__(self, side: int, radius: float) -> None:
        super().__init__()
        self.radius = radius
        start = torch.cat([torch.full((1, 1), _START), torch.zeros(1, 3)], dim=1)
        self.values = nn.Parameter(start.view(1, 4, 1, 1, 1).repeat(1, 1, side, side, side))

    def forward(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Points (N, 3) -> density (N,) per unit of length, 0 outside, and colour (N, 3)."""
        at = (points / self.radius).flip(-1).view(1, 1, 1, -1, 3)
        raw = F.grid_sample(self.values, at, align_corners=True, padding_mode="border")
        raw = raw.view(4, -1)
        inside = (points.abs() <= self.radius).all(-1)
        return F.softplus(raw[0]) * inside * 10, raw[1:].T.sigmoid()

    def density(self, points: Tensor) -> Tensor:
        """Points (N, 3) -> density (N,), for :func:`mimsuite.fields.export_grid`."""
        return self(points)[0]

    def rgb(self, points: Tensor, directions: Tensor) -> Tensor:
        """Points (N, 3) -> colour (N, 3), for :func:`mimsuite.fields.export_grid`."""
        colour: Tensor = self(points)[1]
        return colour

    def render(
        self,
        origins: Tensor,
        directions: Tensor,
        samples: int,
        jitter: Tensor,
        background: float = 1.0,
    ) -> Tensor:
        """Render rays to (R, 3) colours.

        Args:
            jitter: (R, S) in [0, 1), position of each sample within its segment of the ray.
            background: grey level behind the field.
        """
        reach = self.radius * math.sqrt(3)
        middle = -(origins * directions).sum(-1, keepdim=True)  # closest to the origin
        step = 2 * reach / samples
        depth = middle - reach + (torch.arange(samples) + jitter) * step  # (R, S)
        points = origins[:, None] + depth[..., None] * directions[:, None]
        density, colour = self(points.reshape(-1, 3))
        alpha = 1 - (-density.view_as(depth) * step).exp()
        light = torch.cat([torch.ones_like(alpha[:, :1]), (1 - alpha + 1e-10).cumprod(1)], dim=1)
        weight = light[:, :-1] * alpha  # (R, S)
        behind = background * light[:, -1:]
        return (weight[..., None] * colour.view(*depth.shape, 3)).sum(1) + behind


@dataclass(frozen=True)
class Fitted:
    """A fitted field, and its quality on held-out images.

    Attributes:
        psnr: dB, mean over the held-out images.
        blank: the same for blank images of the background.
    """

    field: GridNeRF
    psnr: float
    blank: float

    @property
    def learnt(self) -> bool:
        """Whether it is better than a blank image."""
        return self.psnr >= self.blank + _BETTER

    @property
    def doubtful(self) -> bool:
        """Whether its quality is so low that the cameras may be wrong."""
        return self.psnr < self.blank + _CLEARLY


def fit(
    posed: Posed,
    *,
    side: int = 40,
    radius: float = 1.0,
    steps: int = 400,
    rays: int = 1024,
    samples: int = 48,
    lr: float = 0.1,
    seed: int = 0,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Fitted:
    """Fit a field to images of a scene within ``radius`` of the origin.

    Args:
        rays: rays per step, drawn from all training images.
        samples: samples per ray.
    """
    held = [view for view in range(len(posed.rgb)) if view % _HELD == _HELD - 1]
    kept = [view for view in range(len(posed.rgb)) if view not in held]
    origins, directions, colours = posed.part(kept).rays()
    generator = torch.Generator().manual_seed(key_of(seed, "fit-nerf") % 2**63)
    field = GridNeRF(side, radius)
    optimizer = torch.optim.Adam(field.parameters(), lr=lr)
    for step in range(steps):
        rows = torch.randint(len(origins), (rays,), generator=generator)
        jitter = torch.rand(rays, samples, generator=generator)
        seen = field.render(origins[rows], directions[rows], samples, jitter, posed.background)
        loss = (seen - colours[rows]).square().mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        progress(step + 1, steps)
    views = held or kept[-1:]
    errors = [(_show(field, posed, view, samples) - posed.rgb[view]).square() for view in views]
    blank = [(posed.background - posed.rgb[view]).square() for view in views]
    return Fitted(field, _psnr(errors), _psnr(blank))


@torch.no_grad()
def _show(field: GridNeRF, posed: Posed, view: int, samples: int) -> Tensor:
    origins, directions, _ = posed.rays(view)
    middle = torch.full((len(origins), samples), 0.5)
    shown = field.render(origins, directions, samples, middle, posed.background)
    return shown.view(posed.rgb[view].shape)


def _psnr(errors: list[Tensor]) -> float:
    return sum(-10 * math.log10(max(float(e.mean()), 1e-12)) for e in errors) / len(errors)
