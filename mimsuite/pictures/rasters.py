"""Pictures of rasters: three of their bands as red, green and blue."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

_CONTRAST = 4.0  # standard deviations of the original from black to white
_GREY = 0.5


def in_colours(
    images: Tensor,
    original: Tensor,
    valid: Tensor,
    bands: Sequence[int],
    hidden: Tensor | None = None,
) -> Tensor:
    """The chosen bands of (B, C, T, H, W) as colours in [0, 1].

    Each band of a sample has the contrast of its original, in all panels, so that they compare;
    what was not observed is grey, what is hidden black.
    """
    axes = (2, 3, 4)
    weights = valid.to(original.dtype)
    count = weights.sum(dim=axes, keepdim=True).clamp_min(1)
    mean = (original * weights).sum(dim=axes, keepdim=True) / count
    spread = (((original - mean) * weights).square().sum(dim=axes, keepdim=True) / count).sqrt()
    pixels = (images - mean) / (_CONTRAST * spread + 1e-6) + 0.5
    pixels = pixels.clamp(0, 1).where(valid, _GREY)
    if hidden is not None:
        pixels = pixels.masked_fill(hidden, 0.0)
    return pixels[:, bands]
