"""Block masking of point groups (Point-BERT, arXiv:2111.14819; Point-MAE, arXiv:2203.06604)."""

from __future__ import annotations

import torch
from torch import Tensor

from mimsuite.config.keys.masks import BallMaskSection
from mimsuite.masking.mask import TokenMask
from mimsuite.masking.sampler import Sampler


class BallSampler(Sampler):
    """Masks the groups nearest to a uniformly drawn group, by the distance of their centres."""

    section: BallMaskSection
    needs_guide = True

    def noise_width(self, grid: tuple[int, ...]) -> int:
        """One number, which picks the middle group."""
        return 1

    def __call__(
        self, noise: Tensor, grid: tuple[int, ...], guide: Tensor | None = None
    ) -> TokenMask:
        """Mask of (B, 1) noise; ``guide`` holds the (B, G, 3) coordinates of the centres."""
        assert guide is not None
        groups = guide.shape[1]
        middle = (noise * groups).long().clamp_max(groups - 1)  # (B, 1)
        middle = guide.gather(1, middle.unsqueeze(-1).expand(-1, -1, 3))  # (B, 1, 3)
        far_first = (guide - middle).square().sum(-1).argsort(dim=1, descending=True, stable=True)
        visible = self.section.visible(groups)
        removed = torch.ones_like(far_first, dtype=torch.bool)
        removed.scatter_(1, far_first[:, :visible], False)
        order = removed.to(torch.uint8).argsort(dim=1, stable=True)  # ascending within each part
        return TokenMask.from_order(order, visible, grid)
