"""Progressive masking of redundant tokens (Hybrid Distillation, Shi et al., arXiv:2306.15876).

No noise is drawn: which tokens go depends on what the encoder makes of them, so this is no sampler
but a hook of the encoder.

Letters: B batch, N tokens that are there, D width.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from mimsuite.config.keys.masks import RedundantMaskSection


class RedundantTokens:
    """A hook of one forward pass that leaves out tokens on the way.

    Behind each of the section's blocks those tokens go whose cosine similarity with the mean token
    is largest; ties go by place.

    Attributes:
        present: number of a block -> ids (B, N) of the tokens that are there behind it; 0: that
            the encoder was given.
    """

    def __init__(self, section: RedundantMaskSection, ids: Tensor) -> None:
        self.kept = section.kept(ids.shape[1])
        self.present: dict[int, Tensor] = {0: ids}

    def __call__(self, number: int, tokens: Tensor, ids: Tensor) -> Tensor | None:
        """Ids of the tokens (B, N, D) that go on, in raster order; ``None`` = all."""
        self.present[number] = ids
        count = self.kept.get(number)
        if count is None:
            return None
        seen = tokens.detach().float()
        likeness = F.cosine_similarity(seen, seen.mean(dim=1, keepdim=True), dim=-1)  # (B, N)
        rows = likeness.argsort(dim=1, stable=True)[:, :count].sort(dim=1).values
        self.present[number] = ids.gather(1, rows)
        return self.present[number]
