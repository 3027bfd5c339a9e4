"""Image corruptions after Hendrycks & Dietterich (arXiv:1903.12261), at three of their five
severities. Lengths are relative to the image, so small images are affected as much as large ones.

Views are (C, H, W): uint8, or float32 in [0, 1], which is not clipped afterwards.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import wraps

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from mimsuite.data.corruptions import Corruption

Change = Callable[[Tensor, float, np.random.Generator], Tensor]


def _on_floats(change: Change) -> Change:
    """Run ``change`` on floats in [0, 1]; uint8 views are converted back, rounded and clipped."""

    @wraps(change)
    def changed(view: Tensor, strength: float, rng: np.random.Generator) -> Tensor:
        if view.dtype != torch.uint8:
            return change(view, strength, rng)
        return (change(view / 255, strength, rng) * 255).round().clamp(0, 255).to(torch.uint8)

    return changed


@_on_floats
def noise(view: Tensor, deviation: float, rng: np.random.Generator) -> Tensor:
    """Add Gaussian noise to every value."""
    return view + deviation * torch.from_numpy(rng.standard_normal(view.shape, dtype=np.float32))


@_on_floats
def blur(view: Tensor, share: float, rng: np.random.Generator) -> Tensor:
    """Gaussian blur; its deviation is ``share`` of the short side."""
    from torchvision.transforms.v2.functional import gaussian_blur  # takes a second to import

    sigma = share * min(view.shape[1:])
    size = 2 * max(1, math.ceil(3 * sigma)) + 1
    blurred: Tensor = gaussian_blur(view, [size, size], [sigma, sigma])
    return blurred


@_on_floats
def contrast(view: Tensor, factor: float, rng: np.random.Generator) -> Tensor:
    """Scale the deviations from each channel's mean by ``factor``."""
    mean = view.mean(dim=(1, 2), keepdim=True)
    return mean + factor * (view - mean)


@_on_floats
def pixelate(view: Tensor, share: float, rng: np.random.Generator) -> Tensor:
    """Average down to ``share`` of the rows and columns, then enlarge by repeating pixels."""
    height, width = view.shape[1:]
    small = (max(1, round(share * height)), max(1, round(share * width)))
    coarse = F.interpolate(view[None], small, mode="area")
    return F.interpolate(coarse, (height, width), mode="nearest")[0]


def translate(view: Tensor, share: float, rng: np.random.Generator) -> Tensor:
    """Shift by ``share`` of the short side in a random direction; edge pixels are repeated."""
    height, width = view.shape[1:]
    angle = rng.uniform(0, 2 * math.pi)
    distance = share * min(height, width)
    down, right = round(distance * math.sin(angle)), round(distance * math.cos(angle))
    rows = (torch.arange(height) - down).clamp(0, height - 1)
    columns = (torch.arange(width) - right).clamp(0, width - 1)
    return view[:, rows][:, :, columns]


CORRUPTIONS = (
    Corruption("noise", (0.08, 0.18, 0.38), "deviation, of the range of values", noise),
    Corruption("blur", (0.02, 0.03, 0.05), "deviation, of the short side", blur),
    Corruption("contrast", (0.4, 0.2, 0.1), "of the contrast stays", contrast),
    Corruption("pixelate", (0.6, 0.4, 0.25), "of the rows and columns stay", pixelate),
    Corruption("translation", (0.05, 0.1, 0.2), "of the short side", translate),
)
