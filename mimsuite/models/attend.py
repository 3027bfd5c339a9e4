"""Scaled-dot-product attention, computed in the way that a training step asks for.

Fused attention is the default. On some CPUs its bf16 kernel is slower than attention in float32, or
than the two matrix products written out; training measures which is fastest
(:mod:`mimsuite.train.cpu_bf16`).

Letters: B batch, h heads, q queries, N keys, d width of a head.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

# fused: torch's fused kernel; written: matrix products and a softmax in float32; fp32: the fused
# kernel on float32 copies.
Way = Literal["fused", "written", "fp32"]
WAYS: tuple[Way, ...] = get_args(Way)

_way: Way = "fused"


@contextmanager
def attending(way: Way) -> Iterator[None]:
    """Compute all attention inside the context in this way."""
    global _way
    before, _way = _way, way
    try:
        yield
    finally:
        _way = before


def attending_again() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    """Contexts of a checkpointed forward pass and of its recomputation, which attend alike."""
    return nullcontext(), attending(_way)


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    bias: Tensor | None = None,
    scale: float | None = None,
) -> Tensor:
    """(B, h, q, d) attention of queries (B, h, q, d) to keys and values (B, h, N, d).

    Args:
        bias: floats added to the scores, broadcastable to (B, h, q, N).
        scale: factor of the scores; ``None``: ``1 / sqrt(d)``.
    """
    if _way == "fused":
        return F.scaled_dot_product_attention(query, key, value, attn_mask=bias, scale=scale)
    if _way == "fp32":
        wide = None if bias is None else bias.float()
        q, k, v = query.float(), key.float(), value.float()
        with torch.autocast(query.device.type, enabled=False):
            out = F.scaled_dot_product_attention(q, k, v, attn_mask=wide, scale=scale)
        return out.to(value.dtype)
    scores = (query * (query.shape[-1] ** -0.5 if scale is None else scale)) @ key.transpose(-2, -1)
    if bias is not None:
        scores = scores + bias
    return scores.softmax(dim=-1, dtype=torch.float32).to(value.dtype) @ value
