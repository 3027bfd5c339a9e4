"""Pixels of tubelets as VideoMAE predicts them (Tong et al., arXiv:2203.12602)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mimsuite.config.keys.bands import RasterTargetSection
from mimsuite.config.keys.scans import CubeTargetSection
from mimsuite.config.keys.video import ClipTargetSection

_EPS = 1e-6


class TubeletTarget(nn.Module):
    """Pixels in [0, 1], optionally normalised per tubelet AND colour channel.

    The normalisation is (v - mean) / (sqrt(unbiased variance) + 1e-6). MAE differs: its statistics
    are over all channels of a patch, and it adds 1e-6 inside the root.

    Args:
        mean, std: statistics by which the input was normalised, per channel or one for all.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        section: ClipTargetSection | CubeTargetSection | RasterTargetSection,
        mean: Sequence[float],
        std: Sequence[float],
    ) -> None:
        super().__init__()
        self.normalize = section.normalize
        self.register_buffer("mean", torch.tensor(mean), False)
        self.register_buffer("std", torch.tensor(std), False)

    def forward(self, vectors: Tensor, channels: int, valid: Tensor | None = None) -> Tensor:
        """(B, K, P) tubelet vectors of the normalised input -> targets, float32 or wider.

        Args:
            valid: (B, K, P) bool, the pixels that statistics are of; ``None`` = all.
        """
        pixels = self.pixels(vectors, channels)
        if self.normalize:
            mean, deviation = self._statistics(pixels, valid)
            pixels = (pixels - mean) / deviation
        return pixels.flatten(2)

    def loss(
        self, prediction: Tensor, target: Tensor, counted: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """(loss, its denominator): the mean squared error of the tokens that count.

        Args:
            counted: (B, K) bool, the tokens that carry loss, or (B, K, P) bool, the pixels;
                ``None`` = all.
        """
        errors = (_widened(prediction) - target).square()
        if counted is None:
            return errors.mean(), None
        weights = counted.to(errors.dtype)
        if counted.ndim == 2:
            total = weights.sum()
            return (errors.mean(2) * weights).sum() / total, total
        total = weights.sum().clamp_min(1)  # without observed pixels the loss is 0
        return (errors * weights).sum() / total, total

    def denormalize(
        self, prediction: Tensor, vectors: Tensor, channels: int, valid: Tensor | None = None
    ) -> Tensor:
        """Predictions (B, K, P) in the space of the input.

        With normalised targets this uses the statistics of the true ``vectors``; the title of a
        picture must say so.
        """
        pixels = _widened(prediction).unflatten(2, (-1, channels))
        if self.normalize:
            mean, deviation = self._statistics(self.pixels(vectors, channels), valid)
            pixels = pixels * deviation + mean
        return ((pixels - self.mean) / self.std).flatten(2)

    def pixels(self, vectors: Tensor, channels: int) -> Tensor:
        """(B, K, t*p*p, C) pixels in [0, 1] of normalised tubelet vectors."""
        return _widened(vectors).unflatten(2, (-1, channels)) * self.std + self.mean

    @staticmethod
    def _statistics(pixels: Tensor, valid: Tensor | None = None) -> tuple[Tensor, Tensor]:
        if valid is None:
            mean = pixels.mean(dim=2, keepdim=True)
            return mean, pixels.var(dim=2, keepdim=True).sqrt() + _EPS
        weights = valid.reshape(pixels.shape).to(pixels.dtype)
        count = weights.sum(dim=2, keepdim=True)
        mean = (pixels * weights).sum(dim=2, keepdim=True) / count.clamp_min(1)
        squares = ((pixels - mean) * weights).square().sum(dim=2, keepdim=True)
        return mean, (squares / (count - 1).clamp_min(1)).sqrt() + _EPS


def _widened(tensor: Tensor) -> Tensor:
    """Promote to at least float32; float64 is unchanged."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))
