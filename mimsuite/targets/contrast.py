"""Contrastive loss of two embeddings per sample: NT-Xent (Chen et al., arXiv:2002.05709, eq. 1).

Letters: B samples, D width.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def nt_xent(first: Tensor, second: Tensor, temperature: float) -> Tensor:
    """Mean cross-entropy of identifying each embedding's partner; 0-d, float32 or wider.

    Each of the 2 B embeddings has one partner and 2 B - 2 negatives, from both sides; logits are
    cosines divided by the temperature. The loss is symmetric in its two sides, and 0 for a single
    sample.

    Args:
        first, second: (B, D) embeddings, samples in the same order, gathered from all ranks.
    """
    both = torch.cat([first, second])
    both = F.normalize(both.to(torch.promote_types(both.dtype, torch.float32)), dim=1)
    with torch.autocast(both.device.type, enabled=False):
        logits = both @ both.T / temperature  # (2 B, 2 B)
    itself = torch.eye(len(both), dtype=torch.bool, device=both.device)
    partner = torch.arange(len(both), device=both.device).roll(len(first))
    return F.cross_entropy(logits.masked_fill(itself, float("-inf")), partner)
