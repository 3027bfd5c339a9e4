"""Contrast of two embeddings of the same samples: NT-Xent (Chen et al., arXiv:2002.05709, eq. 1).

Letters: B samples, D width.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def nt_xent(first: Tensor, second: Tensor, temperature: float) -> Tensor:
    """0-d, float32 or wider: how badly each embedding finds its partner among all others.

    Each of the 2 B embeddings has one partner and 2 B - 2 negatives, those of the same side too;
    similarity is the cosine over the temperature. The mean over all of them, so that the sides may
    be exchanged. Of a single sample it is 0.

    Args:
        first, second: (B, D) in the same order of samples, of all ranks where there are several.
    """
    both = torch.cat([first, second])
    both = F.normalize(both.to(torch.promote_types(both.dtype, torch.float32)), dim=1)
    with torch.autocast(both.device.type, enabled=False):
        logits = both @ both.T / temperature  # (2 B, 2 B)
    itself = torch.eye(len(both), dtype=torch.bool, device=both.device)
    partner = torch.arange(len(both), device=both.device).roll(len(first))
    return F.cross_entropy(logits.masked_fill(itself, float("-inf")), partner)
