"""Predictions for a whole volume from windows that overlap, weighted by a Gaussian around the
middle of each (Isensee et al., nnU-Net, Nature Methods 18, 2021).

Letters: (X, Y, Z) volume, (x, y, z) window, W windows, K outputs a voxel.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import product

import torch
from torch import Tensor

_SIGMA = 1 / 8  # deviation of the Gaussian, in sides of the window, as published
_LEAST = 1e-3  # weight of the corners, so that every voxel has one


def sliding_window(
    predict: Callable[[Tensor], Tensor],
    volume: Tensor,
    window: Sequence[int],
    overlap: float = 0.5,
    batch: int = 4,
) -> Tensor:
    """(K, X, Y, Z) float32: weighted means of the windows' outputs.

    Args:
        predict: (W, C, x, y, z) -> (W, K, x, y, z).
        volume: (C, X, Y, Z), no side shorter than the window's.
        overlap: least share of a window that the next one along an axis covers again.
        batch: windows at once.
    """
    places = list(
        product(
            *(starts(n, side, overlap) for n, side in zip(volume.shape[1:], window, strict=True))
        )
    )
    weights = gaussian(window).to(volume.device)
    total, mass = None, torch.zeros(volume.shape[1:], device=volume.device)
    for first in range(0, len(places), batch):
        spots = [_spot(place, window) for place in places[first : first + batch]]
        outputs = predict(torch.stack([volume[(slice(None), *spot)] for spot in spots])).float()
        if total is None:
            total = torch.zeros(outputs.shape[1], *volume.shape[1:], device=volume.device)
        for spot, output in zip(spots, outputs, strict=True):
            total[(slice(None), *spot)] += output * weights
            mass[spot] += weights
    assert total is not None
    return total / mass


def starts(length: int, side: int, overlap: float) -> list[int]:
    """First voxels of windows along an axis: evenly spread, from the first voxel to the last.

    Raises:
        ValueError: the axis is shorter than a window.
    """
    if length < side:
        raise ValueError(f"an axis of {length} voxels is shorter than a window of {side}")
    step = max(1, int(side * (1 - overlap)))
    count = -(-(length - side) // step)
    return [round((length - side) * number / max(1, count)) for number in range(count + 1)]


def gaussian(window: Sequence[int]) -> Tensor:
    """(x, y, z) weights, 1 in the middle, and never below a thousandth."""
    axes = []
    for side in window:
        away = torch.arange(side, dtype=torch.float32) - (side - 1) / 2
        axes.append(torch.exp(-0.5 * (away / (side * _SIGMA)) ** 2))
    weights = torch.einsum("x,y,z->xyz", *axes)
    return (weights / weights.max()).clamp_min(_LEAST)


def _spot(place: Sequence[int], window: Sequence[int]) -> tuple[slice, ...]:
    return tuple(slice(at, at + side) for at, side in zip(place, window, strict=True))
