"""VideoMAE's encoder: a transformer that computes only the visible tubelets.

Letters: B batch, N tubelets, V visible tubelets, P = t*p*p*C pixels of a tubelet, D width.
Parameter names below the encoder are those of the published code.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from torch import Tensor, nn

from mimsuite.masking import gather_tokens
from mimsuite.models.beit_block import BEiTBlock
from mimsuite.models.blocks import init_linear, run_blocks
from mimsuite.models.clip_encoder import ClipEncoder, TubeletEmbed
from mimsuite.models.drop_path import drop_path
from mimsuite.models.features import Features
from mimsuite.noise import Noise
from mimsuite.tokens import resize_clip_positions, sinusoid_1d


class VideoViT(ClipEncoder):
    """Encoder of visible tubelets, without class token; positions are fixed and not stored."""

    pos_embed: Tensor

    def __init__(self, section: Any) -> None:
        super().__init__(section)
        self.patch_embed = TubeletEmbed(
            section.in_channels, section.tubelet, section.patch_size, section.width
        )
        trained = section.grid_of(section.trained_size or section.size)
        self.register_buffer("pos_embed", self.positions(section.width, trained, self.grid), False)
        self.blocks = nn.ModuleList(
            BEiTBlock(
                section.width,
                section.heads,
                section.mlp_ratio,
                section.norm_eps,
                section.layer_scale,
                cosine=section.cosine_attention,
            )
            for _ in range(section.depth)
        )
        norm = nn.LayerNorm(section.width, eps=section.norm_eps)
        self.norm = norm if section.final_norm else nn.Identity()
        self.apply(init_linear)  # the convolution keeps torch's initialisation, as published

    @staticmethod
    def positions(
        width: int, trained: tuple[int, int, int], grid: tuple[int, int, int] | None = None
    ) -> Tensor:
        """(1, N, width) fixed positions; see :func:`positions`."""
        return positions(width, trained, grid)

    def forward(
        self,
        vectors: Tensor,
        ids: Tensor | None = None,
        *,
        noise: Noise | None = None,
        layers: Collection[int] = (),
        grid: tuple[int, int, int] | None = None,
        added: Tensor | None = None,
    ) -> Features:
        """Encode tubelet vectors.

        Args:
            vectors: (B, V, P).
            ids: (B, V) ids of the tubelets; ``None`` = all of ``grid``, in raster order.
            noise: keyed noise for drop path; needed while training with ``drop_path`` > 0.
            layers: numbers, from 1, of the blocks whose outputs are also returned.
            grid: tokens along time, rows and columns; positions are resized to it. ``None``: as
                trained.
            added: (B, N, D) numbers to add to the positions of all tokens of the grid.
        """
        table = resize_clip_positions(self.pos_embed, self.grid, grid or self.grid)
        if added is not None:
            table = table + added.to(table.dtype)
        if ids is not None:
            table = gather_tokens(table, ids)
        x = self.patch_embed(vectors) + table  # (B, V, D)
        keep = drop_path(self, self.section.drop_path, self.depth, noise)
        x, outputs = run_blocks(self.blocks, x, keep, layers)
        x = self.norm(x)
        return Features(cls=x[:, :0], tokens=x, layers=outputs)


def positions(
    width: int, trained: tuple[int, int, int], grid: tuple[int, int, int] | None = None
) -> Tensor:
    """(1, N, width) fixed positions of the grid ``trained``, resized to ``grid``."""
    frames, rows, columns = trained
    table = sinusoid_1d(frames * rows * columns, width)[None]
    return resize_clip_positions(table, trained, grid or trained)
