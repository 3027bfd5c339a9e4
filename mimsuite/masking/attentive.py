"""Attentive masking (MaskAlign, Xue et al., arXiv:2211.08887, section 3.1).

Visible tokens are sampled without replacement, weighted by the attention of the teacher's class
token. The sample is the top-k of ``log w - log(-log u)`` with uniform u (Efraimidis & Spirakis
2006; Gumbel top-k): one sort and no loop.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mimsuite.config.keys.masks import AttentiveMaskSection
from mimsuite.masking.mask import TokenMask
from mimsuite.masking.sampler import Sampler

_LEAST = torch.finfo(torch.float32).tiny  # keeps the logarithm finite, so any token can be drawn


class AttentiveSampler(Sampler):
    """Keeps tokens sampled by the weights ``guide``, in the order in which they are drawn."""

    section: AttentiveMaskSection
    needs_guide = True

    def __call__(
        self, noise: Tensor, grid: tuple[int, ...], guide: Tensor | None = None
    ) -> TokenMask:
        """Mask of (B, N) noise and (B, N) weights, which need not sum to 1."""
        if guide is None:
            raise ValueError("attentive masking needs the attention of a teacher as its guide")
        weights = guide.float().clamp_min(_LEAST)
        scores = weights.log() - (-noise.float().log()).log()
        order = scores.argsort(dim=1, descending=True, stable=True)
        tokens = noise.shape[1]
        visible, dropped = self.section.visible(tokens), self.section.dropped(tokens)
        return TokenMask.from_order(order, visible, grid, dropped)
