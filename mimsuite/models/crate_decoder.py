"""CRATE-MAE's decoder: structured denoising-diffusion blocks (Pai et al., arXiv:2404.02446)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mimsuite.masking import TokenMask
from mimsuite.models.blocks import init_linear, run_blocks
from mimsuite.models.crate import CrateDecoderBlock
from mimsuite.models.features import Features


class CrateDecoder(nn.Module):
    """Latents of all tokens -> predictions of ``out_width`` numbers per token.

    It has the encoder's width and adds neither mask tokens nor positions, which already passed the
    encoder. The last block, the norm and the head compute only masked tokens.
    """

    def __init__(
        self, width: int, depth: int, heads: int, out_width: int, eps: float, final_eps: float
    ) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(CrateDecoderBlock(width, heads, eps) for _ in range(depth))
        self.norm = nn.LayerNorm(width, eps=final_eps)
        self.pred = nn.Linear(width, out_width)
        self.apply(init_linear)

    def forward(self, latent: Features, mask: TokenMask, everywhere: bool = False) -> Tensor:
        """Predictions in the mask's order.

        Args:
            latent: tokens in the mask's order, visible ones first.
            mask: the mask of ``latent``.
            everywhere: predict the visible tokens as well.

        Returns:
            (B, M, out_width) for the masked tokens; with ``everywhere`` (B, V + M, out_width) for
            the visible tokens, then the masked ones.
        """
        x = torch.cat([latent.cls, latent.tokens], dim=1)
        queries = mask.tokens if everywhere else mask.masked.shape[1]
        x, _ = run_blocks(self.blocks, x, queries=queries)
        prediction: Tensor = self.pred(self.norm(x))
        return prediction
