"""The block of VideoMAE's transformers: BEiT's, with cosine attention as an option.

``x += g1 * Attn(LN x); x += g2 * MLP(LN x)``: keys have no bias, the scales g1 and g2 are optional.

Letters: B batch, N tokens, h heads, d width of a head, D width.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from timm.layers import Mlp
from torch import Tensor, nn

from mimsuite.models.beit import scale_of
from mimsuite.models.drop_path import Keep, branch

_MOST_LOG_SCALE = 4.6052  # ln 100, the limit of cosine attention's log scale


class VideoAttention(nn.Module):
    """Self-attention without a key bias.

    Args:
        cosine: use the cosine of queries and keys, times a trained scale per head (Swin V2,
            arXiv:2111.09883, equation 2).
    """

    def __init__(self, width: int, heads: int, cosine: bool = False) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.q_bias = nn.Parameter(torch.zeros(width))
        self.v_bias = nn.Parameter(torch.zeros(width))
        self.proj = nn.Linear(width, width)
        self.scale = nn.Parameter(torch.full((heads, 1, 1), math.log(10.0))) if cosine else None

    def forward(self, x: Tensor, queries: int | None = None) -> Tensor:
        """(B, N, D) -> (B, N, D), or (B, q, D) where only the last q tokens are queries."""
        width = x.shape[2]
        weight, no_bias = self.qkv.weight, torch.zeros_like(self.v_bias)
        if queries is None:
            bias = torch.cat([self.q_bias, no_bias, self.v_bias])
            qkv = F.linear(x, weight, bias).unflatten(2, (3, self.heads, -1))
            q, k, v = (part.transpose(1, 2) for part in qkv.unbind(2))  # each (B, h, N, d)
        else:
            q = F.linear(x[:, -queries:], weight[:width], self.q_bias)
            q = q.unflatten(2, (self.heads, -1)).transpose(1, 2)
            kv = F.linear(x, weight[width:], torch.cat([no_bias, self.v_bias]))
            kv = kv.unflatten(2, (2, self.heads, -1))
            k, v = (part.transpose(1, 2) for part in kv.unbind(2))
        if self.scale is None:
            out = F.scaled_dot_product_attention(q, k, v)
        else:
            scale = self.scale.clamp(max=_MOST_LOG_SCALE).exp().to(q.dtype)
            q, k = F.normalize(q, dim=-1) * scale, F.normalize(k, dim=-1)
            out = F.scaled_dot_product_attention(q, k, v, scale=1.0)
        return self.proj(out.transpose(1, 2).flatten(2))


class VideoBlock(nn.Module):
    """Pre-norm block; parameter names are those of the published code."""

    def __init__(
        self,
        width: int,
        heads: int,
        mlp_ratio: float,
        eps: float,
        layer_scale: float = 0.0,
        cosine: bool = False,
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=eps)
        self.attn = VideoAttention(width, heads, cosine)
        self.norm2 = nn.LayerNorm(width, eps=eps)
        self.mlp = Mlp(width, hidden_features=int(width * mlp_ratio), act_layer=nn.GELU)
        self.gamma_1 = scale_of(width, layer_scale)
        self.gamma_2 = scale_of(width, layer_scale)

    def forward(self, x: Tensor, keep: Keep = None, queries: int | None = None) -> Tensor:
        """(B, N, D) -> (B, N, D); arguments as for :class:`mimsuite.models.blocks.Block`."""
        first, second = keep or (None, None)
        attended = self.attn(self.norm1(x), queries)
        if queries is not None:
            x = x[:, -queries:]
        x = x + branch(attended, first, self.gamma_1)
        return x + branch(self.mlp(self.norm2(x)), second, self.gamma_2)
