"""Uniform random masking (MAE, He et al., arXiv:2111.06377, section 3)."""

from __future__ import annotations

from torch import Tensor

from mimsuite.config.keys.masks import RandomMaskSection
from mimsuite.masking.mask import TokenMask
from mimsuite.masking.sampler import Sampler


class RandomSampler(Sampler):
    """Keeps the tokens with the least noise, in order of their noise."""

    section: RandomMaskSection

    def __call__(
        self, noise: Tensor, grid: tuple[int, ...], guide: Tensor | None = None
    ) -> TokenMask:
        """Mask of (B, N) float32 noise, one number per token of ``grid``."""
        order = noise.argsort(dim=1, stable=True)  # stable: equal noise sorts alike everywhere
        tokens = noise.shape[1]
        visible, dropped = self.section.visible(tokens), self.section.dropped(tokens)
        return TokenMask.from_order(order, visible, grid, dropped)
