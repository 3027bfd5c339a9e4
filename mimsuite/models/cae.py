"""Regressor and decoder of CAE (Chen et al., arXiv:2202.03026, section 3).

The regressor predicts the latents of masked patches from the latents of visible patches and from
positions; it does not change the visible latents. The decoder sees only predicted latents.

Letters: B batch, V visible, M masked, N patches, D width of the regressor, h heads, K codes.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from timm.layers import Mlp
from torch import Tensor, nn

from mimsuite.config.keys.cae import RegressorSection, TokenDecoderSection
from mimsuite.masking import TokenMask, gather_tokens
from mimsuite.models.attend import attend
from mimsuite.models.beit import init_tokens
from mimsuite.models.beit_block import BEiTBlock
from mimsuite.models.blocks import init_linear
from mimsuite.models.drop_path import Keep, branch, drop_path
from mimsuite.noise import Noise
from mimsuite.tokens import sincos_2d


class CrossAttention(nn.Module):
    """Attention of queries to other tokens, without a key bias."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q = nn.Linear(width, width, bias=False)
        self.k = nn.Linear(width, width, bias=False)
        self.v = nn.Linear(width, width, bias=False)
        self.q_bias = nn.Parameter(torch.zeros(width))
        self.v_bias = nn.Parameter(torch.zeros(width))
        self.proj = nn.Linear(width, width)

    def forward(self, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """(B, M, D) queries, (B, N, D) keys and values -> (B, M, D)."""
        q = F.linear(queries, self.q.weight, self.q_bias)
        v = F.linear(values, self.v.weight, self.v_bias)
        parts = (x.unflatten(2, (self.heads, -1)).transpose(1, 2) for x in (q, self.k(keys), v))
        out = attend(*parts)  # (B, h, M, d)
        return self.proj(out.transpose(1, 2).flatten(2))


class RegressorBlock(nn.Module):
    """Cross-attention and MLP; the residual stream is normalised after the attention, as published.

    Parameter names are those of the published code.
    """

    def __init__(self, section: RegressorSection, eps: float) -> None:
        super().__init__()
        width = section.width
        self.norm1_q = nn.LayerNorm(width, eps=eps)
        self.norm1_k = nn.LayerNorm(width, eps=eps)
        self.norm1_v = nn.LayerNorm(width, eps=eps)
        self.norm2_cross = nn.LayerNorm(width, eps=eps)
        self.cross_attn = CrossAttention(width, section.heads)
        hidden = int(width * section.mlp_ratio)
        self.mlp_cross = Mlp(width, hidden_features=hidden, act_layer=nn.GELU)
        trained = section.layer_scale > 0  # published checkpoints also hold fixed scales
        start = torch.full((width,), section.layer_scale if trained else 1.0)
        self.gamma_1_cross = nn.Parameter(start.clone(), requires_grad=trained)
        self.gamma_2_cross = nn.Parameter(start.clone(), requires_grad=trained)

    def forward(
        self, x: Tensor, visible: Tensor, where: Tensor, places: Tensor, keep: Keep = None
    ) -> Tensor:
        """(B, M, D) -> (B, M, D).

        Args:
            visible: (B, V, D) latents.
            where: (B, M, D) positions of ``x``.
            places: (B, V + M, D) positions of ``[visible, x]``.
            keep: (B,) factors of the two branches (drop path).
        """
        first, second = keep or (None, None)
        seen = torch.cat([visible, x], dim=1)
        attended = self.cross_attn(
            self.norm1_q(x + where), self.norm1_k(seen + places), self.norm1_v(seen)
        )
        x = self.norm2_cross(x + branch(attended, first, self.gamma_1_cross))
        return x + branch(self.mlp_cross(x), second, self.gamma_2_cross)


class Regressor(nn.Module):
    """(visible latents, mask) -> predicted latents of the masked patches.

    Args:
        in_width: width of the encoder; where it differs from the regressor's, :meth:`project`
            applies a linear map and a norm.
        final_norm: normalise the output (CAE does, CAE v2 does not).
    """

    def __init__(
        self,
        section: RegressorSection,
        in_width: int,
        grid: tuple[int, int],
        eps: float,
        final_norm: bool = True,
    ) -> None:
        super().__init__()
        self.section = section
        self.mask_token = nn.Parameter(torch.zeros(1, 1, section.width))
        positions = F.pad(sincos_2d(section.width, grid, row_first=True), (0, 0, 1, 0))[None]
        self.pos_embed = nn.Parameter(positions, requires_grad=False)
        same = in_width == section.width
        self.embed = None if same else nn.Linear(in_width, section.width)
        self.embed_norm = None if same else nn.LayerNorm(section.width, eps=eps)
        self.blocks = nn.ModuleList(RegressorBlock(section, eps) for _ in range(section.depth))
        self.norm = nn.LayerNorm(section.width, eps=eps)
        self.final_norm = final_norm
        if not final_norm:  # published checkpoints hold the norm even so
            self.norm.requires_grad_(False)
        self.apply(init_linear)
        init_tokens(self.mask_token)

    def project(self, latents: Tensor) -> Tensor:
        """Map encoder latents (B, n, in_width) to the regressor's width (B, n, D)."""
        if self.embed is None or self.embed_norm is None:
            return latents
        return self.embed_norm(self.embed(latents))

    def positions(self, ids: Tensor) -> Tensor:
        """(B, n) patch ids -> (B, n, D) positions."""
        return gather_tokens(self.pos_embed[:, 1:], ids)

    def forward(self, visible: Tensor, mask: TokenMask, noise: Noise | None = None) -> Tensor:
        """Predicted latents (B, M, D) in the mask's order; ``visible``: (B, V, D), projected."""
        where = self.positions(mask.masked)
        places = torch.cat([self.positions(mask.visible), where], dim=1)
        x = self.mask_token.to(visible.dtype).expand(len(visible), mask.masked.shape[1], -1)
        factors = drop_path(self, self.section.drop_path, self.section.depth, noise)
        for block, keep in zip(self.blocks, factors, strict=True):
            x = block(x, visible, where, places, keep)
        return self.norm(x) if self.final_norm else x


class TokenDecoder(nn.Module):
    """Predicted latents -> scores of K codes."""

    def __init__(
        self, section: TokenDecoderSection, regressor: RegressorSection, codes: int, eps: float
    ) -> None:
        super().__init__()
        self.section = section
        width = regressor.width
        self.blocks = nn.ModuleList(
            BEiTBlock(width, regressor.heads, regressor.mlp_ratio, eps, regressor.layer_scale)
            for _ in range(section.depth)
        )
        self.norm = nn.LayerNorm(width, eps=eps)
        self.head = nn.Linear(width, codes)
        self.apply(init_linear)

    def forward(self, latents: Tensor, where: Tensor, noise: Noise | None = None) -> Tensor:
        """(B, M, D) latents and their positions -> (B, M, K)."""
        x = latents + where
        factors = drop_path(self, self.section.drop_path, self.section.depth, noise)
        for block, keep in zip(self.blocks, factors, strict=True):
            x = block(x, keep)
        return self.head(self.norm(x))


class FeatureHead(nn.Module):
    """A norm and a linear map, shared by all tokens (CAE v2)."""

    def __init__(self, width: int, out_width: int, eps: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, eps=eps)
        self.head = nn.Linear(width, out_width)
        self.apply(init_linear)

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, n, D) -> (B, n, out_width)."""
        return self.head(self.norm(tokens))
