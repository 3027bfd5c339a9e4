"""Pictures of rasters: three of their bands as red, green and blue."""

from __future__ import annotations

import torch
from torch import Tensor

from mimsuite.config.keys.bands import RasterAugmentSection

_CONTRAST = 4.0  # standard deviations of the original from black to white
_GREY = 0.5


def in_colours(
    images: Tensor,
    original: Tensor,
    valid: Tensor,
    augment: RasterAugmentSection,
    hidden: Tensor | None = None,
) -> Tensor:
    """(B, C, T, H, W) normalised -> (B, 3, T, H, W), or one channel of fewer than three bands.

    Each band of a sample has the contrast of its original, which is stated so that all panels of a
    sample compare; what was not observed is grey, what is hidden black.

    Returns:
        values that ``augment.mean`` and ``augment.std`` bring to [0, 1], of three channels where
        these are one for all, else of all bands, the three that are shown first.
    """
    channels = images.shape[1]
    shown = [band - 1 for band in augment.shown] if channels >= 3 else [0]
    axes = (2, 3, 4)
    weights = valid.to(original.dtype)
    count = weights.sum(dim=axes, keepdim=True).clamp_min(1)
    mean = (original * weights).sum(dim=axes, keepdim=True) / count
    spread = (((original - mean) * weights).square().sum(dim=axes, keepdim=True) / count).sqrt()
    pixels = (images - mean) / (_CONTRAST * spread + 1e-6) + 0.5  # [0, 1] mostly
    pixels = pixels.clamp(0, 1).where(valid, _GREY)
    if hidden is not None:
        pixels = pixels.masked_fill(hidden, 0.0)
    pixels = pixels[:, shown]
    scale = torch.tensor(augment.std, device=pixels.device)
    shift = torch.tensor(augment.mean, device=pixels.device)
    if len(scale) == 1:
        return (pixels - shift) / scale
    rest = [band for band in range(channels) if band not in shown]
    blank = pixels.new_zeros(pixels.shape[0], len(rest), *pixels.shape[2:])
    whole = torch.cat([pixels, blank], dim=1)
    shape = (1, -1, 1, 1, 1)
    return (whole - shift.view(shape)) / scale.view(shape)
