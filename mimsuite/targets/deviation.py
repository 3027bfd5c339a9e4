"""How much features differ, channel by channel: near 0 where they have collapsed."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


@torch.no_grad()
def channel_deviation(tokens: Tensor, gather: Callable[[Tensor], Tensor]) -> Tensor:
    """0-d: the mean over channels of their standard deviation over all tokens of all ranks.

    Args:
        tokens: (..., D), as many on every rank.
        gather: all-gather over ranks, identity on one process.
    """
    flat = tokens.detach().float().flatten(0, -2)
    mean = flat.mean(0)
    # About its own mean first: where features hardly differ, squares would cancel.
    moments = torch.stack([mean, (flat - mean).square().mean(0)])[None]  # (1, 2, D)
    means, variances = gather(moments).unbind(1)
    return (variances.mean(0) + means.var(0, correction=0)).sqrt().mean()
