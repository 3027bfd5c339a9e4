"""Assignments of tokens to clusters that use all clusters alike (Cuturi, arXiv:1306.0895; as online
clustering has it, SwAV, arXiv:2006.09882, and CAPI, arXiv:2502.08769).

Letters: P problems, T tokens of each on this rank, K clusters.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

_EPS = 1e-8
_TOP = 50.0  # exponent of the largest entry, so that float32 holds the smallest ones too


@torch.no_grad()
def balanced_assignments(
    logits: Tensor, iterations: int, gather: Callable[[Tensor], Tensor]
) -> Tensor:
    """(P, T, K) shares of each token in the clusters, float32; those of a token sum to 1.

    In turn the tokens of a cluster are made to sum to 1, over all ranks, and the clusters of a
    token.

    Args:
        logits: (P, T, K) scores, already divided by their temperature; as many tokens on any rank.
        gather: all-gather over ranks, identity on one process. Only maxima and sums are gathered.
    """
    shares = logits.float()
    top = gather(shares.amax(dim=1)[None]).amax(dim=0)  # (P, K)
    shares = (shares - (top.unsqueeze(1) - _TOP)).exp_()
    for _ in range(iterations):
        sums = gather(shares.sum(dim=1)[None]).sum(dim=0)
        shares.div_(sums.unsqueeze(1) + _EPS)
        shares.div_(shares.sum(dim=2, keepdim=True) + _EPS)
    return shares


@torch.no_grad()
def entropy(shares: Tensor) -> Tensor:
    """(..., K) shares that sum to 1 -> (...), in nats."""
    return -torch.xlogy(shares, shares).sum(dim=-1)
