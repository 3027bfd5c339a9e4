"""Relations between tokens as targets (Hybrid Distillation, Shi et al., arXiv:2306.15876).

The relation of X and Y is ``softmax(X Y^T / sqrt(d))`` over tokens. QK relates queries and keys, VV
values and values.

Letters: B batch, N tokens, h heads, d width of a head.
"""

from __future__ import annotations

from torch import Tensor

QKV = tuple[Tensor, Tensor, Tensor]


def in_heads(x: Tensor, heads: int) -> Tensor:
    """(B, h, N, d) -> (B, heads, N, h d / heads): heads merged, then split equally."""
    batch, count, tokens, width = x.shape
    if count == heads:
        return x
    return x.transpose(1, 2).reshape(batch, tokens, heads, count * width // heads).transpose(1, 2)


def log_relations(qkv: QKV, heads: int) -> tuple[Tensor, Tensor]:
    """Log-probabilities of the QK and the VV relation, (B, heads, N, N), float32."""
    q, k, v = (in_heads(part.float(), heads) for part in qkv)
    scale = q.shape[-1] ** -0.5
    qk, vv = ((x * scale) @ y.transpose(-1, -2) for x, y in ((q, k), (v, v)))
    return qk.log_softmax(dim=-1), vv.log_softmax(dim=-1)


def relation_loss(student: QKV, teacher: QKV, heads: int) -> Tensor:
    """Mean of KL(teacher || student) over batch, heads and queries, summed over both relations.

    Both sides hold the same tokens; their heads may differ in number and width.
    """
    pairs = zip(log_relations(student, heads), log_relations(teacher, heads), strict=True)
    losses = [(target.exp() * (target - log)).sum(dim=-1).mean() for log, target in pairs]
    return losses[0] + losses[1]
