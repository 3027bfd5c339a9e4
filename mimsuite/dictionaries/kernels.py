"""Kernels of the pseudo-gradient of a jump's threshold (arXiv:2407.14435).

Each is a function K(d) of the distance d to the threshold and, except ``cosine``, includes the
factor 1 / bandwidth. The pseudo-gradients of :mod:`.jumprelu` divide by the bandwidth again, as
published code does.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

_ROOT = math.sqrt(2)


def _rectangle(d: Tensor, width: float) -> Tensor:
    return (d.abs() <= width / 2) / width


def _gaussian(d: Tensor, width: float) -> Tensor:
    return torch.exp(-_scaled(d, width).square() / 2) / (width * math.sqrt(2 * math.pi))


def _triangular(d: Tensor, width: float) -> Tensor:
    return (1 - _scaled(d, width)).clamp(min=0) / (width / 2)


def _cosine(d: Tensor, width: float) -> Tensor:
    return (1 + torch.cos(math.pi * d / width)) / 2 * (d.abs() <= width)


def _epanechnikov(d: Tensor, width: float) -> Tensor:
    return 0.75 * (1 - _scaled(d, width).square()).clamp(min=0) / (width / 2)


def _quartic(d: Tensor, width: float) -> Tensor:
    return 15 / 16 * (1 - _scaled(d, width).square()).clamp(min=0).square() / (width / 2)


def _silverman(d: Tensor, width: float) -> Tensor:
    # Negative for |s| from 3.33 to 7.8, where the threshold's gradient changes sign.
    s = _scaled(d, width) / _ROOT
    return torch.exp(-s) * torch.sin(s + math.pi / 4) / (width / 2)


def _cauchy(d: Tensor, width: float) -> Tensor:
    return 1 / (1 + _scaled(d, width).square()) / (math.pi * width / 2)


def _scaled(d: Tensor, width: float) -> Tensor:
    """|d| in half bandwidths."""
    return d.abs() / (width / 2)


KERNELS: dict[str, Callable[[Tensor, float], Tensor]] = {
    "rectangle": _rectangle,
    "gaussian": _gaussian,
    "triangular": _triangular,
    "cosine": _cosine,
    "epanechnikov": _epanechnikov,
    "quartic": _quartic,
    "silverman": _silverman,
    "cauchy": _cauchy,
}
