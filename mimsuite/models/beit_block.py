"""The block of BEiT (Bao et al., arXiv:2106.08254), which CAE and VideoMAE have too.

``x += g1 * Attn(LN x); x += g2 * MLP(LN x)``: keys have no bias; ``g1`` and ``g2`` are trained
per-channel scales, if there are any.

Letters: B batch, N tokens, h heads, d width of a head, D width.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from timm.layers import Mlp
from torch import Tensor, nn

from mimsuite.errors import UserError
from mimsuite.models.attend import attend
from mimsuite.models.drop_path import Keep, branch

_MOST_LOG_SCALE = 4.6052  # ln 100, the limit of cosine attention's log scale


class BEiTAttention(nn.Module):
    """Self-attention without a key bias.

    Args:
        grid: rows and columns of patches, for relative position biases; ``None`` = no such biases.
        cosine: use the cosine of queries and keys, times a trained scale per head (Swin V2,
            arXiv:2111.09883, equation 2).
    """

    def __init__(
        self, width: int, heads: int, grid: tuple[int, int] | None = None, cosine: bool = False
    ) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.q_bias = nn.Parameter(torch.zeros(width))
        self.v_bias = nn.Parameter(torch.zeros(width))
        self.proj = nn.Linear(width, width)
        self.scale = nn.Parameter(torch.full((heads, 1, 1), math.log(10.0))) if cosine else None
        self.relative_position_bias_table: nn.Parameter | None = None
        if grid is not None:
            offsets = (2 * grid[0] - 1) * (2 * grid[1] - 1)
            self.relative_position_bias_table = nn.Parameter(torch.zeros(offsets + 3, heads))
            self.register_buffer("relative_position_index", relative_index(grid))

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
        offsets, scale = self._offset_bias(k), None
        if self.scale is not None:
            sharpness = self.scale.clamp(max=_MOST_LOG_SCALE).exp().to(q.dtype)
            q, k, scale = F.normalize(q, dim=-1) * sharpness, F.normalize(k, dim=-1), 1.0
        out = attend(q, k, v, offsets, scale)
        return self.proj(out.transpose(1, 2).flatten(2))

    def _offset_bias(self, k: Tensor) -> Tensor | None:
        """(h, N, N) biases added to the scores, by the offset between two tokens."""
        if self.relative_position_bias_table is None:
            return None
        index: Tensor = self.relative_position_index  # type: ignore[assignment]
        if k.shape[2] != len(index):
            raise UserError(
                f"relative position biases are for {len(index) - 1} patches, not "
                f"{k.shape[2] - 1}: use images of model.encoder.image_size"
            )
        return self.relative_position_bias_table[index].permute(2, 0, 1).to(k.dtype)


class BEiTBlock(nn.Module):
    """Pre-norm block; parameter names are those of the published code."""

    def __init__(
        self,
        width: int,
        heads: int,
        mlp_ratio: float,
        eps: float,
        layer_scale: float = 0.0,
        grid: tuple[int, int] | None = None,
        cosine: bool = False,
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=eps)
        self.attn = BEiTAttention(width, heads, grid, cosine)
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


def scale_of(width: int, value: float) -> nn.Parameter | None:
    """The trained scale of a branch, (D,); ``None`` for 0."""
    return nn.Parameter(torch.full((width,), value)) if value else None


def relative_index(grid: tuple[int, int]) -> Tensor:
    """(1 + N, 1 + N) int64: row of the bias table for each pair of tokens, in BEiT's order.

    The table has (2H - 1) * (2W - 1) offsets of patches, then class to patch, patch to class, class
    to class.
    """
    rows, columns = grid
    row = torch.arange(rows).repeat_interleave(columns)
    column = torch.arange(columns).repeat(rows)
    down = row[:, None] - row[None] + rows - 1
    across = column[:, None] - column[None] + columns - 1
    offsets = (2 * rows - 1) * (2 * columns - 1)
    index = torch.empty(len(row) + 1, len(row) + 1, dtype=torch.int64)
    index[1:, 1:] = down * (2 * columns - 1) + across
    index[0, :] = offsets
    index[:, 0] = offsets + 1
    index[0, 0] = offsets + 2
    return index
