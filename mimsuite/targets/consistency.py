"""Agreement of two reconstructions of the same tokens (Point-CMAE, arXiv:2407.05862).

No projector, temperature or negatives: the loss is the mean of ``1 - cosine`` over tokens that are
masked in both views.

Letters: B samples, N tokens, D width.
"""

from __future__ import annotations

from typing import Literal

import torch.nn.functional as F
from torch import Tensor

ConsistencyKind = Literal["all_pairs", "same_token"]

_EPS = 1e-8  # epsilon of the published formula


def consistency(
    first: Tensor, second: Tensor, comasked: Tensor, kind: ConsistencyKind
) -> tuple[Tensor, Tensor]:
    """Sum of the disagreements and number of tokens summed over; 0-d float32 each.

    Args:
        first, second: (B, N, D) tokens of the two views, in the same order.
        comasked: (B, N) bool, the tokens that are masked in both views.
        kind: what a co-masked token of the first view is compared with. ``same_token``: the same
            token of the second view, as in the paper's text. ``all_pairs``: all N tokens of the
            second view, averaged, as in the released code.
    """
    first, second = (F.normalize(tokens.float(), dim=-1) for tokens in (first, second))
    if kind == "all_pairs":  # the mean of the cosines is the cosine with the mean
        apart = 1 + _EPS - (first * second.mean(dim=1, keepdim=True)).sum(-1)  # (B, N)
    else:
        apart = 1 - (first * second).sum(-1)
    weight = comasked.to(apart.dtype)
    return (apart * weight).sum(), weight.sum()
