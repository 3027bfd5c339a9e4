"""The pre-norm transformer block, on timm's attention and MLP.

``x += keep * Attn(LN x); x += keep * MLP(LN x)`` with exact-erf GELU and scaled-dot-product
attention. Unlike in timm's block, drop path uses keyed noise instead of the global generator, and a
block can compute only the last tokens of its sequence.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from timm.layers import Attention as TimmAttention
from timm.layers import Mlp
from torch import Tensor, nn

from mimsuite.models.attend import attend
from mimsuite.models.attention import QKV, split_heads
from mimsuite.models.drop_path import Keep, residual
from mimsuite.models.rotary import Turns, of_samples, turn


class Attention(TimmAttention):
    """Multi-head self-attention; with ``queries`` = q only the last q tokens are queries.

    With ``closed`` = c the first c tokens attend only to one another, the others to all tokens.
    With ``turns`` queries and keys are rotated by the angles of their tokens.
    """

    def forward(  # type: ignore[override]
        self,
        x: Tensor,
        queries: int | None = None,
        closed: int = 0,
        turns: Turns | None = None,
    ) -> Tensor:
        """(B, N, D) -> (B, N, D), or (B, q, D) with ``queries``."""
        batch, tokens, width = x.shape
        if queries is None:
            qkv = self.qkv(x).reshape(batch, tokens, 3, self.num_heads, self.head_dim)
            # Unbind along the inner axis: the gradient is then written in the layout that the
            # linear layer reads, without a copy.
            q, k, v = (part.transpose(1, 2) for part in qkv.unbind(2))  # each (B, h, N, d)
        else:
            weight, bias = self.qkv.weight, self.qkv.bias
            biases = (None, None) if bias is None else (bias[:width], bias[width:])
            q = F.linear(x[:, -queries:], weight[:width], biases[0])
            kv = F.linear(x, weight[width:], biases[1])
            q = q.reshape(batch, queries, self.num_heads, self.head_dim).transpose(1, 2)
            kv = kv.reshape(batch, tokens, 2, self.num_heads, self.head_dim)
            k, v = (part.transpose(1, 2) for part in kv.unbind(2))
        if turns is not None:
            q, k = turn(q, turns, last=queries), turn(k, turns)
        if closed and queries is None:
            parts = [
                attend(*(x[:, :, :closed] for x in (q, k, v))),
                attend(q[:, :, closed:], k, v),
            ]
            out = torch.cat(parts, dim=2)
        else:
            out = attend(q, k, v)
        return self.proj(out.transpose(1, 2).flatten(2))


class CrossAttention(nn.Module):
    """Multi-head attention of tokens to a memory of another width.

    Parameter names are those of published code: ``q``, a fused ``kv``, ``proj``.

    Args:
        project: end with an output layer.
    """

    def __init__(self, width: int, memory_width: int, heads: int, *, project: bool = True) -> None:
        super().__init__()
        self.heads = heads
        self.q = nn.Linear(width, width)
        self.kv = nn.Linear(memory_width, 2 * width)
        self.proj = nn.Linear(width, width) if project else nn.Identity()

    def forward(self, x: Tensor, memory: Tensor) -> Tensor:
        """(B, N, D) and memory (B, T, E) -> (B, N, D)."""
        q = self.q(x).unflatten(2, (self.heads, -1)).transpose(1, 2)  # (B, h, N, d)
        kv = self.kv(memory).unflatten(2, (2, self.heads, -1))
        k, v = (part.transpose(1, 2) for part in kv.unbind(2))  # each (B, h, T, d)
        out = attend(q, k, v)
        mixed: Tensor = self.proj(out.transpose(1, 2).flatten(2))
        return mixed


class Block(nn.Module):
    """Pre-norm block; parameter names are those of timm and of the published code."""

    def __init__(
        self, width: int, heads: int, mlp_ratio: float, eps: float, *, qkv_bias: bool = True
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=eps)
        self.attn = Attention(width, num_heads=heads, qkv_bias=qkv_bias)
        self.norm2 = nn.LayerNorm(width, eps=eps)
        self.mlp = Mlp(width, hidden_features=int(width * mlp_ratio), act_layer=nn.GELU)

    def forward(
        self,
        x: Tensor,
        keep: Keep = None,
        queries: int | None = None,
        closed: int = 0,
        turns: Turns | None = None,
    ) -> Tensor:
        """(B, N, D) -> (B, N, D).

        Args:
            keep: (B,) factors of the two residual branches (drop path); ``None`` = 1.
            queries: return only the last ``queries`` tokens, (B, queries, D). The result is exact,
                and cheaper in the last block of a decoder, whose other outputs are not needed.
            closed: number of leading tokens that attend only to one another; not with ``queries``.
            turns: of rotary positions, for all tokens.
        """
        first, second = keep or (None, None)

        def attended(rows: Tensor | None) -> Tensor:
            taken, own = x if rows is None else x[rows], turns
            if rows is not None and turns is not None:
                own = of_samples(turns, rows)
            result: Tensor = self.attn(self.norm1(taken), queries, closed, own)
            return result

        seen = residual(x if queries is None else x[:, -queries:], first, attended)
        return residual(
            seen, second, lambda rows: self.mlp(self.norm2(seen if rows is None else seen[rows]))
        )

    def qkv(self, x: Tensor) -> QKV:
        """Queries, keys and values (B, h, N, d) that :meth:`forward` makes of (B, N, D) tokens.

        A method of the block, since sharded weights are whole only inside of a block's own calls.
        """
        return split_heads(self.attn, self.norm1(x))


def run_blocks(
    blocks: nn.ModuleList,
    x: Tensor,
    keep: Sequence[Keep] | None = None,
    layers: Collection[int] = (),
    *,
    positions: Tensor | None = None,
    queries: int | None = None,
    **shared: Any,
) -> tuple[Tensor, dict[int, Tensor]]:
    """``x = block(x)`` for every block, on (B, N, D).

    Args:
        keep: drop-path factors of each block; ``None``: no block has drop path.
        layers: numbers, from 1, of the blocks whose outputs are also returned; 0: the input of the
            first block.
        positions: (B, N, D) to add before every block.
        queries: the last block computes only this number of tokens, the last ones.
        shared: further arguments of every block.

    Returns:
        the last block's output, and the requested outputs by block number.
    """
    outputs: dict[int, Tensor] = {0: x} if 0 in layers else {}
    for number, block in enumerate(blocks, start=1):
        own: dict[str, Any] = {} if keep is None else {"keep": keep[number - 1]}
        if queries is not None and number == len(blocks):
            own["queries"] = queries
        x = block(x if positions is None else x + positions, **own, **shared)
        if number in layers:
            outputs[number] = x
    return x, outputs


def init_normal(module: nn.Module) -> None:
    """Linear and convolution weights normal with std 0.02, zero biases."""
    if isinstance(module, nn.Linear | nn.Conv2d | nn.Conv3d):
        nn.init.normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def scale_outputs(blocks: Iterable[Any]) -> None:
    """Divide what block i, from 1, adds by the root of 2 i, so that the sum does not grow with
    depth."""
    with torch.no_grad():
        for number, block in enumerate(blocks, start=1):
            block.attn.proj.weight.div_(math.sqrt(2 * number))
            block.mlp.fc2.weight.div_(math.sqrt(2 * number))


def init_linear(module: nn.Module) -> None:
    """MAE's initialisation: xavier-uniform weights (fused qkv as one matrix), zero biases."""
    if isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
