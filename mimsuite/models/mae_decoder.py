"""MAE's decoder: a narrow transformer over visible latents and mask tokens.

The sequence is [class, visible, decoded], never put back into raster order: attention does not
care, and each token carries its own position. So nothing is un-shuffled, and the last block, the
norm and the head compute decoded tokens only. Decoded are all masked tokens, where the mask says
no less. The function is the published one.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mimsuite.config.encoders import DecoderSection
from mimsuite.masking import TokenMask, gather_tokens
from mimsuite.models.blocks import Block, init_linear
from mimsuite.models.encoder import ImageEncoder
from mimsuite.models.features import Features
from mimsuite.models.position_table import position_table


class MAEDecoder(nn.Module):
    """(class, visible latents, mask) -> predictions of ``out_width`` numbers a token.

    Attributes:
        layers: the encoder layers that it reads besides the output: none.
    """

    layers: tuple[int, ...] = ()

    def __init__(self, section: DecoderSection, encoder: ImageEncoder, out_width: int) -> None:
        super().__init__()
        eps, self.class_tokens = encoder.section.norm_eps, encoder.class_tokens
        self.embed = nn.Linear(encoder.width, section.width)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, section.width))
        self.pos_embed = position_table(
            section.width,
            encoder.grid,
            self.class_tokens,
            trained=section.trained_positions,
            start=section.position_start,
        )
        self.blocks = nn.ModuleList(
            Block(section.width, section.heads, section.mlp_ratio, eps)
            for _ in range(section.depth)
        )
        self.norm = nn.LayerNorm(section.width, eps=eps)
        self.pred = nn.Linear(section.width, out_width)
        nn.init.normal_(self.mask_token, std=0.02)
        self.apply(init_linear)

    def forward(self, latent: Features, mask: TokenMask, everywhere: bool = False) -> Tensor:
        """Predictions in the mask's order.

        Returns:
            (B, Nd, out_width) for the decoded tokens; with ``everywhere`` (B, V + M, out_width)
            for the visible tokens and then the masked ones.
        """
        cls_positions = self.pos_embed[:, : self.class_tokens]
        positions = self.pos_embed[:, self.class_tokens :]
        cls = self.embed(latent.cls) + cls_positions
        visible = self.embed(latent.tokens) + gather_tokens(positions, mask.visible)
        asked = mask.masked if everywhere else mask.ids("decoded")
        decoded = self.mask_token.to(visible.dtype) + gather_tokens(positions, asked)
        x = torch.cat([cls, visible, decoded], dim=1)
        for block in self.blocks[:-1]:
            x = block(x)
        wanted = mask.tokens if everywhere else asked.shape[1]
        x = self.blocks[-1](x, queries=wanted)
        return self.pred(self.norm(x))
