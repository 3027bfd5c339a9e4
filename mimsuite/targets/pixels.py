"""Pixel reconstruction (MAE, arXiv:2111.06377, section 3 "Reconstruction target")."""

from __future__ import annotations

import torch
from torch import Tensor

from mimsuite.config.keys.targets import PixelTargetSection

_EPS = 1e-6


class PixelTarget:
    """Pixels of a patch, optionally normalised by the patch's own mean and unbiased variance."""

    def __init__(self, section: PixelTargetSection) -> None:
        self.normalize = section.normalize

    def __call__(self, patches: Tensor) -> Tensor:
        """(B, K, P) patch vectors -> targets of the same shape, float32 or wider."""
        patches = _widened(patches)
        if not self.normalize:
            return patches
        mean, deviation = self.statistics(patches)
        return (patches - mean) / deviation

    def loss(self, prediction: Tensor, target: Tensor) -> Tensor:
        """Mean squared error over tokens and pixels, in float32 or wider."""
        return (_widened(prediction) - target).square().mean()

    def denormalize(self, prediction: Tensor, patches: Tensor) -> Tensor:
        """Predictions as pixels.

        With normalised targets this uses the statistics of the true ``patches``, so a picture
        shows more than the model predicts; its title must say so.
        """
        if not self.normalize:
            return _widened(prediction)
        mean, deviation = self.statistics(_widened(patches))
        return _widened(prediction) * deviation + mean

    @staticmethod
    def statistics(patches: Tensor) -> tuple[Tensor, Tensor]:
        """(B, K, 1) mean and sqrt(variance + 1e-6); the variance is unbiased, as published."""
        mean = patches.mean(dim=-1, keepdim=True)
        return mean, (patches.var(dim=-1, keepdim=True) + _EPS).sqrt()


def _widened(tensor: Tensor) -> Tensor:
    """Promote to at least float32; float64 is unchanged."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))
