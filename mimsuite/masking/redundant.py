"""Progressive masking of redundant tokens (Hybrid Distillation, Shi et al., arXiv:2306.15876).

The encoder's features decide which tokens are dropped, without noise. So this is a hook of the
encoder, not a sampler.

Letters: B batch, N tokens present, D width.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from mimsuite.config.keys.masks import RedundantMaskSection


class RedundantTokens:
    """Hook of one forward pass that drops tokens between blocks.

    After each of the section's blocks it drops the tokens with the largest cosine similarity to the
    mean token; ties are broken by position.

    Attributes:
        present: number of a block -> ids (B, N) of the tokens present after it; 0: the ids at the
            encoder's input.
    """

    def __init__(self, section: RedundantMaskSection, ids: Tensor) -> None:
        self.kept = section.kept(ids.shape[1])
        self.present: dict[int, Tensor] = {0: ids}

    def __call__(self, number: int, tokens: Tensor, ids: Tensor) -> Tensor | None:
        """Ids of the tokens (B, N, D) to keep, in raster order; ``None`` = all."""
        self.present[number] = ids
        count = self.kept.get(number)
        if count is None:
            return None
        seen = tokens.detach().float()
        likeness = F.cosine_similarity(seen, seen.mean(dim=1, keepdim=True), dim=-1)  # (B, N)
        rows = likeness.argsort(dim=1, stable=True)[:, :count].sort(dim=1).values
        self.present[number] = ids.gather(1, rows)
        return self.present[number]
