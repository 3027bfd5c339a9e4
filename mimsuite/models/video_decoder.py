"""VideoMAE's decoder: a narrow transformer over visible latents and mask tokens.

The sequence is [visible, decoded]. With a decoder mask (VideoMAE V2), a decoded token may also be
visible; it then has a mask token besides its latent, as published. The last block, the norm and the
head compute only the decoded tokens.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from mimsuite.config.keys.video import ClipDecoderSection
from mimsuite.masking import TokenMask, gather_tokens
from mimsuite.models.beit_block import BEiTBlock
from mimsuite.models.blocks import init_linear, run_blocks
from mimsuite.models.features import Features
from mimsuite.models.video_vit import positions


class ClipDecoder(nn.Module):
    """(visible latents, mask) -> predictions of ``out_width`` numbers per token.

    Args:
        table: (width, grid) -> (1, N, width) positions.
    """

    pos_embed: Tensor

    def __init__(
        self,
        section: ClipDecoderSection,
        in_width: int,
        out_width: int,
        grid: tuple[int, int, int],
        eps: float,
        layer_scale: float = 0.0,
        cosine: bool = False,
        table: Callable[[int, tuple[int, int, int]], Tensor] = positions,
    ) -> None:
        super().__init__()
        self.embed = nn.Linear(in_width, section.width, bias=False)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, section.width))
        self.register_buffer("pos_embed", table(section.width, grid), False)
        self.blocks = nn.ModuleList(
            BEiTBlock(
                section.width, section.heads, section.mlp_ratio, eps, layer_scale, cosine=cosine
            )
            for _ in range(section.depth)
        )
        self.norm = nn.LayerNorm(section.width, eps=eps)
        self.head = nn.Linear(section.width, out_width)
        nn.init.trunc_normal_(self.mask_token, std=0.02, a=-0.02, b=0.02)
        self.apply(init_linear)

    def forward(
        self,
        latent: Features,
        mask: TokenMask,
        part: str = "decoded",
        added: Tensor | None = None,
    ) -> Tensor:
        """(B, Nd, out_width) for the tokens of ``part``: decoded or masked, in the mask's order.

        Args:
            added: (B, N, D) numbers to add to the positions of all tokens.
        """
        table = self.pos_embed if added is None else self.pos_embed + added
        seen = self.embed(latent.tokens) + gather_tokens(table, mask.visible)
        ids = mask.ids(part)
        queries = self.mask_token.to(seen.dtype) + gather_tokens(table, ids)
        x = torch.cat([seen, queries], dim=1)
        x, _ = run_blocks(self.blocks, x, queries=ids.shape[1])
        return self.head(self.norm(x))
