"""Queries, keys, values and attention weights of a block, recomputed outside fused attention.

Fused attention returns no weights, so queries, keys and values are computed again from the
normalised input of the block's attention.

Letters: B batch, N tokens, D width, h heads, d = D / h.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from mimsuite.errors import UserError

QKV = tuple[Tensor, Tensor, Tensor]


@contextmanager
def attention_inputs(
    blocks: Sequence[nn.Module], numbers: Collection[int]
) -> Iterator[dict[int, Tensor]]:
    """While blocks run, record the normalised attention inputs (B, N, D) by block number from 1."""
    seen: dict[int, Tensor] = {}

    def keep(number: int) -> Any:
        return lambda module, args: seen.__setitem__(number, args[0])

    handles = []
    for number in set(numbers):
        attention: Any = blocks[number - 1].attn
        handles.append(attention.register_forward_pre_hook(keep(number)))
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def split_heads(attention: Any, x: Tensor) -> QKV:
    """Queries, keys and values (B, h, N, d) of a fused ``qkv`` layer, after its query-key norm.

    Raises:
        UserError: the attention has no ``num_heads``.
    """
    if not hasattr(attention, "num_heads"):
        raise UserError("the attention of this teacher's encoder cannot be read: take a plain ViT")
    batch, tokens, _ = x.shape
    qkv = attention.qkv(x).reshape(batch, tokens, 3, attention.num_heads, -1)
    q, k, v = (part.transpose(1, 2) for part in qkv.unbind(2))
    for name in ("q_norm", "k_norm"):
        if not hasattr(attention, name):
            return q, k, v
    return attention.q_norm(q), attention.k_norm(k), v


def cls_attention(qkv: QKV, prefix: int) -> Tensor:
    """(B, h, N) attention of the first token to the tokens after the first ``prefix`` ones."""
    q, k, _ = qkv
    scores = (q[:, :, :1].float() * q.shape[-1] ** -0.5) @ k.float().transpose(-1, -2)
    return scores.softmax(dim=-1)[:, :, 0, prefix:]
