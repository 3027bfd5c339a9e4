"""Colour and opacity of voxels as targets (NeRF-MAE, Irshad et al., arXiv:2404.01300).

Letters: B batch, R voxels a side; a grid is (B, 4, R, R, R): colour in [0, 1] and opacity alpha.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mimsuite.config.keys.volume import RadianceTargetSection


def opacity(density: Tensor, kind: str, delta: float = 0.01) -> Tensor:
    """Alpha in [0, 1] from density: ``1 - exp(-sigma delta)``; 1 where the exponential overflows.

    Args:
        kind: ``log``: density is log sigma (instant-ngp); ``linear``: density is sigma, negative
            values count as 0 (ReLU fields); ``alpha``: density is already opacity.
        delta: length over which light is absorbed, in units of the field.
    """
    if kind == "alpha":
        return density.clamp(0.0, 1.0)
    sigma = density.clamp_min(0.0) if kind == "linear" else density.exp()
    return (1 - (-sigma * delta).exp()).clamp(0.0, 1.0)


@dataclass(frozen=True)
class RadianceLoss:
    """The two loss terms; a term without any counted voxel is 0."""

    colour: Tensor
    opacity: Tensor

    @property
    def total(self) -> Tensor:
        return self.colour + self.opacity


class RadianceTarget:
    """Squared errors in float32 or wider, averaged over the counted voxels of the batch."""

    def __init__(self, section: RadianceTargetSection) -> None:
        self.section = section

    def loss(self, prediction: Tensor, grid: Tensor, masked: Tensor, valid: Tensor) -> RadianceLoss:
        """Colour over occupied voxels (three channels summed), opacity over masked valid ones.

        Args:
            prediction: (B, 4, R, R, R), opacity before the sigmoid.
            masked: (B, 1, R, R, R) bool, voxels of masked tokens.
            valid: (B, 1, R, R, R) bool, voxels of the scene, not of its padding.
        """
        wide = torch.promote_types(prediction.dtype, torch.float32)
        prediction, grid = prediction.to(wide), grid.to(wide)
        occupied = grid[:, 3:] > self.section.occupied
        if self.section.rgb_region == "occupied-masked":
            occupied = occupied & masked
        colour = (prediction[:, :3] - grid[:, :3]).square()
        alpha = (prediction[:, 3:].sigmoid() - grid[:, 3:]).square()
        return RadianceLoss(mean_over(colour, occupied), mean_over(alpha, masked & valid))


def mean_over(error: Tensor, counted: Tensor) -> Tensor:
    """Sum of ``error`` over the counted voxels, divided by their number (at least 1)."""
    return (error * counted).sum() / counted.sum().clamp_min(1)


def colour_error(prediction: Tensor, grid: Tensor, occupied: float) -> tuple[Tensor, Tensor]:
    """Squared colour error over the voxels with opacity above ``occupied``, in float32.

    Args:
        prediction, grid: (B, 4, R, R, R).

    Returns:
        (B,) sums of the error, averaged over channels, and (B,) numbers of voxels.
    """
    counted = grid[:, 3:].float() > occupied
    error = (prediction[:, :3].float() - grid[:, :3].float()).square().mean(1, keepdim=True)
    return (error * counted).flatten(1).sum(1), counted.flatten(1).sum(1)


def valid_voxels(sizes: Tensor, side: int) -> Tensor:
    """(B, 1, R, R, R) bool: voxels inside scenes of ``sizes`` (B, 3), not in their padding."""
    at = torch.arange(side, device=sizes.device)
    x, y, z = (at < sizes[:, axis, None] for axis in range(3))  # (B, R) each
    return (x[:, :, None, None] & y[:, None, :, None] & z[:, None, None, :]).unsqueeze(1)


def voxels_of(tokens: Tensor, patch: int) -> Tensor:
    """Token values (B, X, Y, Z) -> voxel values (B, 1, R, R, R), constant within a token."""
    for axis in (1, 2, 3):
        tokens = tokens.repeat_interleave(patch, dim=axis)
    return tokens.unsqueeze(1)
