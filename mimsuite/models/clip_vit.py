"""A plain transformer of tubelets, or of the patches of images, that sees only those it is given
(V-JEPA, arXiv:2404.08471; V-JEPA 2, arXiv:2506.09985).

Letters: B batch, N tubelets, V visible ones, P = t*p*p*C pixels of a tubelet, D width.
Parameter names below the encoder are those of the published code.
"""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import Tensor, nn

from mimsuite.config.keys.video import ClipViTSection
from mimsuite.masking import gather_tokens
from mimsuite.models.blocks import Block, init_normal, run_blocks
from mimsuite.models.clip_encoder import ClipEncoder, TubeletEmbed
from mimsuite.models.drop_path import drop_path
from mimsuite.models.features import Features
from mimsuite.models.rotary import turns_of
from mimsuite.models.vit import PatchEmbed
from mimsuite.noise import Noise
from mimsuite.tokens import fit_clip_positions, sincos_clip


class ClipViT(ClipEncoder):
    """Encoder of visible tubelets, without class token; positions are rotary or a fixed table."""

    def __init__(self, section: ClipViTSection) -> None:
        super().__init__(section)
        self.view = "image" if section.still else "clip"
        channels, patch, width = section.in_channels, section.patch_size, section.width
        self.patch_embed: nn.Module = (
            PatchEmbed(channels, patch, width)
            if section.still
            else TubeletEmbed(channels, section.tubelet, patch, width)
        )
        self.head_width = width // section.heads
        self.pos_embed = clip_table(width, section)
        self.blocks = nn.ModuleList(
            Block(width, section.heads, section.mlp_ratio, section.norm_eps)
            for _ in range(section.depth)
        )
        norm = nn.LayerNorm(width, eps=section.norm_eps)
        self.norm = norm if section.final_norm else nn.Identity()
        self.apply(init_normal)

    def tubelets(self, clips: Tensor, ids: Tensor | None = None) -> Tensor:
        """Vectors of (B, C, T, H, W) clips or (B, C, H, W) images, all or those of ``ids``."""
        return super().tubelets(clips.unsqueeze(2) if clips.ndim == 4 else clips, ids)

    def forward(
        self,
        vectors: Tensor,
        ids: Tensor | None = None,
        *,
        noise: Noise | None = None,
        layers: Collection[int] = (),
        grid: tuple[int, int, int] | None = None,
    ) -> Features:
        """Encode tubelet vectors.

        Args:
            vectors: (B, V, P).
            ids: (B, V) which tubelets they are; ``None`` = all of ``grid``, in raster order.
            noise: keyed noise for drop path; needed while training with ``drop_path`` > 0.
            layers: numbers, from 1, of the blocks whose output is wanted too.
            grid: tokens along time, per column and row where it is not the trained one.
        """
        grid = grid or self.grid
        x = self.patch_embed(vectors)  # (B, V, D)
        turns = None
        if self.pos_embed is None:
            every = torch.arange(x.shape[1], device=x.device)[None] if ids is None else ids
            turns = turns_of(every, grid, self.head_width)
        else:
            table = fit_clip_positions(self.pos_embed, self.grid, grid)
            x = x + (table if ids is None else gather_tokens(table, ids))
        keep = drop_path(self, self.section.drop_path, self.depth, noise)
        x, outputs = run_blocks(self.blocks, x, keep, layers, turns=turns)
        return Features(x[:, :0], self.norm(x), outputs, pools=("mean", "max"))


def clip_table(width: int, section: ClipViTSection) -> nn.Parameter | None:
    """(1, N, width) fixed sin-cos positions of an encoder's grid; ``None`` where they turn."""
    if section.positions == "rotary":
        return None
    table = sincos_clip(width, section.grid, section.even_positions)[None]
    return nn.Parameter(table, requires_grad=False)
