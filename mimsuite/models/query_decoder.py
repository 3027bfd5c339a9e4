"""A decoder of queries that see the encoder's tokens and never one another (CAPI, Darcet et al.,
arXiv:2502.08769, section 3).

So a part of the queries costs that part, and what it gives is exact.

Letters: B batch, M tokens of the encoder, T queries, D width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mimsuite.config.keys.encoders import QueryDecoderSection
from mimsuite.models.blocks import init_linear
from mimsuite.models.register_vit import Memory, RegisterViT, RotaryBlock, drop_path, norm_of
from mimsuite.noise import Noise


class QueryDecoder(nn.Module):
    """Blocks as the encoder's, of its width; every query begins as the one mask token."""

    def __init__(self, section: QueryDecoderSection, encoder: RegisterViT) -> None:
        super().__init__()
        self.mask_token = nn.Parameter(torch.zeros(1, encoder.width))
        self.blocks = nn.ModuleList(RotaryBlock(encoder.section) for _ in range(section.depth))
        self.norm = norm_of(encoder.section, affine=False)
        nn.init.normal_(self.mask_token, std=0.02)
        self.apply(init_linear)

    def forward(
        self,
        encoder: RegisterViT,
        memory: Memory,
        places: Tensor,
        noise: Noise | None = None,
        blocks: int | None = None,
    ) -> Tensor:
        """(B, T, D) of queries at (B or 1, T, 2) places.

        Args:
            encoder: that made the memory; drop path is as in it.
            blocks: number of first blocks to run.
        """
        batch, depth = len(memory[0]), len(self.blocks)
        x = self.mask_token.expand(batch, places.shape[1], -1)
        keep = drop_path(encoder, noise, batch, depth)
        for block, kept in list(zip(self.blocks, keep, strict=True))[:blocks]:
            x = block(x, places, memory, kept)
        normed: Tensor = self.norm(x)
        return normed
