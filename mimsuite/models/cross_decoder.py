"""CrossMAE's decoder (Fu, Lian et al., arXiv:2401.14391): mask tokens attend to the encoder.

Queries are the mask tokens of the decoded tokens; keys and values are class and visible tokens. So
the cost is proportional to the number of decoded tokens. Each block reads its own trained mixture
of the encoder's layers (section 3.4 of the paper, "inter-block attention").

Letters: B batch, T = C + V class and visible tokens, D width of the encoder, F mixed layers, Nd
decoded tokens, P width of the decoder.
"""

from __future__ import annotations

import torch
from timm.layers import Mlp
from torch import Tensor, nn

from mimsuite.config.keys.encoders import CrossDecoderSection
from mimsuite.masking import TokenMask, gather_tokens
from mimsuite.models.blocks import Attention, CrossAttention, init_linear
from mimsuite.models.encoder import ImageEncoder
from mimsuite.models.features import Features
from mimsuite.models.position_table import position_table


class CrossBlock(nn.Module):
    """Pre-norm block: ``[x += SelfAttn(LN x);] x += CrossAttn(LN x, memory); x += MLP(LN x)``.

    Parameter names are those of the published code.
    """

    def __init__(self, section: CrossDecoderSection, memory_width: int, eps: float) -> None:
        super().__init__()
        width, heads = section.width, section.heads
        self.self_attn = Attention(width, heads, qkv_bias=True) if section.self_attention else None
        self.norm0 = nn.LayerNorm(width, eps=eps) if section.self_attention else None
        self.norm1 = nn.LayerNorm(width, eps=eps)
        self.cross_attn = CrossAttention(width, memory_width, heads)
        self.norm2 = nn.LayerNorm(width, eps=eps)
        hidden = int(width * section.mlp_ratio)
        self.mlp = Mlp(width, hidden_features=hidden, act_layer=nn.GELU)

    def forward(self, x: Tensor, memory: Tensor) -> Tensor:
        """(B, Nd, P) and memory (B, T, D) -> (B, Nd, P)."""
        if self.self_attn is not None and self.norm0 is not None:
            x = x + self.self_attn(self.norm0(x))
        x = x + self.cross_attn(self.norm1(x), memory)
        return x + self.mlp(self.norm2(x))


class CrossDecoder(nn.Module):
    """(encoder layers, mask) -> predictions of ``out_width`` numbers per token.

    Attributes:
        layers: numbers of the encoder layers that it reads, as in :class:`Features`.
    """

    def __init__(self, section: CrossDecoderSection, encoder: ImageEncoder, out_width: int) -> None:
        super().__init__()
        eps, self.class_tokens = encoder.section.norm_eps, encoder.class_tokens
        self.layers, self.last = section.reads(encoder.depth), encoder.depth
        self.mix = nn.Linear(len(self.layers), section.depth, bias=False)  # one row per block
        self.memory_norms = nn.ModuleList(
            nn.LayerNorm(encoder.width, eps=eps) for _ in range(section.depth)
        )
        self.mask_token = nn.Parameter(torch.zeros(1, 1, section.width))
        self.pos_embed = position_table(  # unused rows of class tokens included, as published
            section.width,
            encoder.grid,
            encoder.class_tokens,
            trained=section.trained_positions,
            start=section.position_start,
        )
        self.blocks = nn.ModuleList(
            CrossBlock(section, encoder.width, eps) for _ in range(section.depth)
        )
        self.norm = nn.LayerNorm(section.width, eps=eps)
        self.pred = nn.Linear(section.width, out_width)
        nn.init.normal_(self.mask_token, std=0.02)
        self.apply(init_linear)

    def forward(self, latent: Features, mask: TokenMask, everywhere: bool = False) -> Tensor:
        """Predictions in the mask's order.

        Returns:
            (B, Nd, out_width) for the decoded tokens; with ``everywhere`` (B, V + M, out_width) for
            the visible tokens, then the masked ones.
        """
        ids = mask.ids("decoded")
        if everywhere:
            ids = torch.cat([mask.visible, mask.masked], dim=1)
        places = gather_tokens(self.pos_embed[:, self.class_tokens :], ids)
        memories = self.memories(latent)
        x = self.mask_token.to(memories.dtype) + places  # (B, Nd, P)
        for block, norm, memory in zip(self.blocks, self.memory_norms, memories, strict=True):
            x = block(x, norm(memory))
        return self.pred(self.norm(x))

    def memories(self, latent: Features) -> Tensor:
        """(blocks, B, T, D): each block's mixture of layers, before its norm."""
        sources = torch.stack(self.sources(latent))  # (F, B, T, D)
        mixed = self.mix.weight @ sources.flatten(1)
        return mixed.unflatten(1, sources.shape[1:])

    def sources(self, latent: Features) -> list[Tensor]:
        """The F mixed layers, (B, T, D) each.

        The last layer is the encoder's final output and not its last block's output, so that
        everything computed after that block is read and trained too.
        """
        last = torch.cat([latent.cls, latent.tokens], dim=1)
        return [last if number == self.last else latent.layers[number] for number in self.layers]
