"""A narrow transformer that predicts latents of hidden tubelets from those of visible ones.

The sequence is [visible, asked for], as in :mod:`mimsuite.models.predictor`: each token carries its
own position, so that order means nothing.

Letters: B batch, V visible, T asked for, D width of latents.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mimsuite.config.keys.video import ClipPredictorSection, ClipViTSection
from mimsuite.masking import gather_tokens
from mimsuite.models.blocks import Block, init_normal, run_blocks
from mimsuite.models.clip_vit import clip_table
from mimsuite.models.rotary import turns_of


class ClipPredictor(nn.Module):
    """Visible latents and the places of other tokens -> latents there.

    Args:
        encoder: whose latents they are; positions are as its own.
    """

    def __init__(self, section: ClipPredictorSection, encoder: ClipViTSection) -> None:
        super().__init__()
        width, eps = section.width, encoder.norm_eps
        self.grid, self.head_width = encoder.grid, width // section.heads
        self.embed = nn.Linear(encoder.width, width)
        self.mask_tokens = nn.ParameterList(
            nn.Parameter(torch.zeros(1, 1, width)) for _ in range(section.mask_tokens)
        )
        self.pos_embed = clip_table(width, encoder)
        self.blocks = nn.ModuleList(
            Block(width, section.heads, section.mlp_ratio, eps) for _ in range(section.depth)
        )
        self.norm = nn.LayerNorm(width, eps=eps)
        self.proj = nn.Linear(width, encoder.width)
        self.apply(init_normal)

    def forward(self, latent: Tensor, ids: Tensor, targets: Tensor, token: int = 0) -> Tensor:
        """(B, T, D) latents of ``targets`` (B, T), from ``latent`` (B, V, D) of ``ids`` (B, V).

        Args:
            token: number of the mask token that stands for what is asked for.
        """
        x = self.embed(latent)
        asked = self.mask_tokens[token].to(x.dtype).expand(*targets.shape, -1)
        x = torch.cat([x, asked], dim=1)
        places, turns = torch.cat([ids, targets], dim=1), None
        if self.pos_embed is None:
            turns = turns_of(places, self.grid, self.head_width)
        else:
            x = x + gather_tokens(self.pos_embed, places)
        x, _ = run_blocks(self.blocks, x, queries=targets.shape[1], turns=turns)
        found: Tensor = self.proj(self.norm(x))
        return found
