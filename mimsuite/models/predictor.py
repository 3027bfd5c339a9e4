"""A narrow transformer that predicts tokens from visible latents and mask tokens.

The sequence is [class, visible, targets]. It is never restored to raster order: attention does not
depend on the order, as each token carries its position. So nothing is unshuffled, and the last
block, the norm and the head compute only the targets.

Letters: B batch, C class tokens, V visible, K target sets, T tokens of a set, D width of latents.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from mimsuite.config.keys.encoders import DecoderSection
from mimsuite.masking import gather_tokens
from mimsuite.models.blocks import Block, init_linear, run_blocks
from mimsuite.models.position_table import position_table


class Predictor(nn.Module):
    """Visible latents and ids of target tokens -> ``out_width`` numbers per target token.

    Args:
        in_width: D.
        grid: tokens along each axis.
        class_tokens: number of class tokens at the start of the latents.
        init: initialises each module.
    """

    def __init__(
        self,
        section: DecoderSection,
        in_width: int,
        out_width: int,
        grid: tuple[int, int],
        eps: float,
        class_tokens: int = 0,
        init: Callable[[nn.Module], None] = init_linear,
    ) -> None:
        super().__init__()
        self.class_tokens = class_tokens
        self.embed = nn.Linear(in_width, section.width)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, section.width))
        self.pos_embed = position_table(
            section.width,
            grid,
            class_tokens,
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
        self.apply(init)

    def forward(self, latent: Tensor, ids: Tensor, targets: Tensor) -> Tensor:
        """Predict each target set from the visible latents, in a sequence of its own.

        Args:
            latent: (B, C + V, D).
            ids: (B, V) ids of the visible tokens.
            targets: (K, B, T) ids of the target tokens.

        Returns:
            (K, B, T, out_width).
        """
        seen = self.seen(latent, ids)
        sets = [torch.cat([seen, self.asked(each, seen.dtype)], dim=1) for each in targets]
        predicted = self.run(torch.cat(sets), targets.shape[2])  # (K B, T, out_width)
        return predicted.unflatten(0, targets.shape[:2])

    def seen(self, latent: Tensor, ids: Tensor) -> Tensor:
        """(B, C + V, D) latents -> tokens of the sequence, with positions added."""
        count = self.class_tokens
        places = gather_tokens(self.pos_embed[:, count:], ids)
        first = self.pos_embed[:, :count].expand(len(ids), -1, -1)
        return self.embed(latent) + torch.cat([first, places], dim=1)

    def asked(self, ids: Tensor, dtype: torch.dtype) -> Tensor:
        """Mask tokens at the positions of ``ids`` (B, T)."""
        places = gather_tokens(self.pos_embed[:, self.class_tokens :], ids)
        return self.mask_token.to(dtype) + places

    def run(self, x: Tensor, last: int) -> Tensor:
        """Predictions for the last ``last`` tokens of a sequence."""
        return self.pred(self.norm(run_blocks(self.blocks, x, queries=last)[0]))
