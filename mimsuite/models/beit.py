"""BEiT's vision transformer (Bao et al., arXiv:2106.08254), as used by CAE (arXiv:2202.03026).

``x += g1 * Attn(LN x); x += g2 * MLP(LN x)``: keys have no bias, ``g1`` and ``g2`` are trained
per-channel scales. Positions are fixed sin-cos codes, row first. In fine-tuning each block's
attention has a trained bias for every offset between two patches, initialised to zero.

Letters: B batch, N tokens, h heads, d width of a head, D width.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import ClassVar

import torch
import torch.nn.functional as F
from timm.layers import Mlp
from torch import Tensor, nn

from mimsuite.config.keys.encoders import BEiTSection
from mimsuite.errors import UserError
from mimsuite.models.drop_path import Keep, branch
from mimsuite.models.vit import ViT
from mimsuite.weights.names import Names


class BEiTAttention(nn.Module):
    """Self-attention without a key bias.

    Args:
        grid: rows and columns of patches, for relative position biases; ``None`` = no such biases.
    """

    def __init__(self, width: int, heads: int, grid: tuple[int, int] | None = None) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.q_bias = nn.Parameter(torch.zeros(width))
        self.v_bias = nn.Parameter(torch.zeros(width))
        self.proj = nn.Linear(width, width)
        self.relative_position_bias_table: nn.Parameter | None = None
        if grid is not None:
            offsets = (2 * grid[0] - 1) * (2 * grid[1] - 1)
            self.relative_position_bias_table = nn.Parameter(torch.zeros(offsets + 3, heads))
            self.register_buffer("relative_position_index", relative_index(grid))

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, D) -> (B, N, D)."""
        bias = torch.cat([self.q_bias, torch.zeros_like(self.v_bias), self.v_bias])
        qkv = F.linear(x, self.qkv.weight, bias).unflatten(2, (3, self.heads, -1))
        q, k, v = (part.transpose(1, 2) for part in qkv.unbind(2))  # each (B, h, N, d)
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=self._offset_bias(q))
        return self.proj(out.transpose(1, 2).flatten(2))

    def _offset_bias(self, q: Tensor) -> Tensor | None:
        """(h, N, N) biases added to the scores, by the offset between two tokens."""
        if self.relative_position_bias_table is None:
            return None
        index: Tensor = self.relative_position_index  # type: ignore[assignment]
        if q.shape[2] != len(index):
            raise UserError(
                f"relative position biases are for {len(index) - 1} patches, not "
                f"{q.shape[2] - 1}: use images of model.encoder.image_size"
            )
        return self.relative_position_bias_table[index].permute(2, 0, 1).to(q.dtype)


class BEiTBlock(nn.Module):
    """Pre-norm block with layer scale; parameter names are those of the published code."""

    def __init__(
        self,
        width: int,
        heads: int,
        mlp_ratio: float,
        eps: float,
        layer_scale: float,
        grid: tuple[int, int] | None = None,
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=eps)
        self.attn = BEiTAttention(width, heads, grid)
        self.norm2 = nn.LayerNorm(width, eps=eps)
        self.mlp = Mlp(width, hidden_features=int(width * mlp_ratio), act_layer=nn.GELU)
        self.gamma_1 = scale_of(width, layer_scale)
        self.gamma_2 = scale_of(width, layer_scale)

    def forward(self, x: Tensor, keep: Keep = None) -> Tensor:
        """(B, N, D) -> (B, N, D); ``keep``: (B,) factors of the two branches (drop path)."""
        first, second = keep or (None, None)
        x = x + branch(self.attn(self.norm1(x)), first, self.gamma_1)
        return x + branch(self.mlp(self.norm2(x)), second, self.gamma_2)


class BEiT(ViT):
    """Encoder of visible patches, with one class token and fixed, row-first positions."""

    section: BEiTSection
    row_first = True
    published = Names(
        [
            ("pooler.query", "query_token"),
            ("pooler.standardise.running_mean", "fc_norm.running_mean"),
            ("pooler.standardise.running_var", "fc_norm.running_var"),
            ("pooler.standardise.num_batches_tracked", "fc_norm.num_batches_tracked"),
            ("pooler.", "attentive_blocks.0."),
            *ViT.published.pairs,
        ]
    )
    published_mark: ClassVar[str] = "attentive_blocks."  # all other names are the plain ViT's

    def __init__(self, section: BEiTSection) -> None:
        super().__init__(section)
        init_tokens(self.cls_token, self.patch_embed.proj.weight)

    def block(self) -> nn.Module:
        section = self.section
        return BEiTBlock(
            section.width,
            section.heads,
            section.mlp_ratio,
            section.norm_eps,
            section.layer_scale,
            section.grid if section.relative_positions else None,
        )


def scale_of(width: int, value: float) -> nn.Parameter | None:
    """The trained scale of a branch, (D,); ``None`` for 0."""
    return nn.Parameter(torch.full((width,), value)) if value else None


def init_tokens(*tensors: Tensor) -> None:
    """CAE's initialisation of tokens and patch embedding: normal, std 0.02, truncated at 0.02."""
    for tensor in tensors:
        nn.init.trunc_normal_(tensor, std=0.02, a=-0.02, b=0.02)


@torch.no_grad()
def init_beit(model: nn.Module, stacks: Iterable[nn.ModuleList]) -> None:
    """BEiT's initialisation (arXiv:2106.08254).

    Linear weights are initialised by :func:`init_tokens`, biases to 0. In the i-th block of a
    stack, the last linear layer of each residual branch is divided by sqrt(2 i).
    """
    for part in model.modules():
        if isinstance(part, nn.Linear):
            init_tokens(part.weight)
            if part.bias is not None:
                nn.init.zeros_(part.bias)
    for stack in stacks:
        for name, part in stack.named_modules():
            if isinstance(part, nn.Linear) and name.endswith(("attn.proj", ".fc2")):
                part.weight /= math.sqrt(2 * (int(name.split(".")[0]) + 1))


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
