"""Standard deviation of features per channel; near 0 when they have collapsed."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


@torch.no_grad()
def channel_deviation(tokens: Tensor, gather: Callable[[Tensor], Tensor]) -> Tensor:
    """0-d: standard deviation over all tokens of all ranks, averaged over channels.

    Args:
        tokens: (..., D), the same number on every rank.
        gather: all-gather over ranks, identity on one process.
    """
    flat = tokens.detach().float().flatten(0, -2)
    moments = torch.stack([flat.mean(0), flat.square().mean(0)])[None]  # (1, 2, D)
    mean, square = gather(moments).mean(0)
    return (square - mean.square()).clamp_min(0).sqrt().mean()
