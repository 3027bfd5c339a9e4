"""The plain vision transformer, which computes only the visible tokens.

Letters: B batch, N patches, V visible patches, P = p*p*C pixels of a patch, D width.
Parameter names below the encoder are those of timm's ``VisionTransformer`` and of MAE's release.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mimsuite.config.keys.encoders import ViTSection
from mimsuite.masking import gather_tokens
from mimsuite.models.attention import QKV
from mimsuite.models.blocks import Block, init_linear
from mimsuite.models.drop_path import drop_path
from mimsuite.models.encoder import ImageEncoder
from mimsuite.models.features import Features
from mimsuite.models.position_table import position_table
from mimsuite.noise import Noise
from mimsuite.tokens import resize_positions

Hook = Callable[[int, Tensor, Tensor], Tensor | None]


class PatchEmbed(nn.Module):
    """Linear embedding of patch vectors.

    The weight is stored as the published convolution kernel (D, C, p, p). A linear map of the
    gathered patches is the same function, computed only for visible patches.
    """

    def __init__(self, channels: int, patch: int, width: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(channels, width, kernel_size=patch, stride=patch)
        nn.init.xavier_uniform_(self.proj.weight.view(width, -1))

    def forward(self, patches: Tensor) -> Tensor:
        """(B, V, P) patch vectors, channel fastest -> (B, V, D)."""
        weight = self.proj.weight.permute(0, 2, 3, 1).flatten(1)  # (D, p*p*C)
        return F.linear(patches, weight, self.proj.bias)


class ViT(ImageEncoder):
    """Encoder of visible patches with absolute positions, with or without class tokens."""

    row_first = False  # whether the first half of a fixed position encodes the row
    class_positions = True  # class tokens have rows in ``pos_embed``

    def __init__(self, section: ViTSection) -> None:
        super().__init__(section)
        self.patch_embed = PatchEmbed(section.in_channels, section.patch_size, section.width)
        self.class_tokens = section.class_tokens
        if self.class_tokens:
            self.cls_token = nn.Parameter(torch.zeros(1, self.class_tokens, section.width))
        self.pos_embed = position_table(
            section.width,
            section.grid,
            self.class_tokens if self.class_positions else 0,
            trained=section.trained_positions,
            start=section.position_start,
            row_first=self.row_first,
        )
        self.blocks = nn.ModuleList(self.block() for _ in range(section.depth))
        norm = nn.LayerNorm(section.width, eps=section.norm_eps)
        self.norm = norm if section.final_norm else nn.Identity()
        if self.class_tokens:
            nn.init.normal_(self.cls_token, std=0.02)
        self.apply(init_linear)

    def block(self) -> nn.Module:
        """A new block."""
        section = self.section
        return Block(section.width, section.heads, section.mlp_ratio, section.norm_eps)

    def forward(
        self,
        patches: Tensor,
        ids: Tensor | None = None,
        *,
        noise: Noise | None = None,
        layers: Collection[int] = (),
        grid: tuple[int, int] | None = None,
        qkv: Collection[int] = (),
        hook: Hook | None = None,
    ) -> Features:
        """Encode patch vectors.

        Args:
            patches: (B, V, P).
            ids: (B, V) ids of the patches; ``None`` = all of ``grid``, in raster order.
            noise: keyed noise for drop path; needed while training with ``drop_path`` > 0.
            layers: numbers, from 1, of the blocks whose outputs are also returned; 0: the input of
                the first block.
            grid: rows and columns of patches; positions are resized to it. ``None``: as trained.
            qkv: numbers, from 1, of the blocks whose queries, keys and values are also returned.
            hook: called after every block with its number, the tokens (B, V, D) without class
                tokens, and their ids. It returns the ids (B, K) of the tokens to keep, ``None`` =
                all.
        """
        x, count = self.embed(patches, ids, grid), self.class_tokens
        keep = drop_path(self, self.drop_path_rates(), self.depth, noise)
        outputs: dict[int, Tensor] = {0: x} if 0 in layers else {}
        heads: dict[int, QKV] = {}
        block: Any
        for number, block in enumerate(self.blocks, start=1):
            if number in qkv:
                heads[number] = block.qkv(x)
            x = block(x, keep=keep[number - 1])
            if number in layers:
                outputs[number] = x
            if hook is not None:
                x, ids = _shrink(x, ids, hook, number, count)
        x = self.norm(x)
        pools = {0: ("mean", "max"), 1: ("cls", "mean")}.get(count, ("cls_mean", "cls", "mean"))
        return Features(x[:, :count], x[:, count:], outputs, qkv=heads, pools=pools)

    def embed(
        self,
        patches: Tensor,
        ids: Tensor | None = None,
        grid: tuple[int, int] | None = None,
    ) -> Tensor:
        """(B, C + V, D), what the first block reads; arguments as of :meth:`forward`."""
        positions = resize_positions(self.pos_embed, self.grid, grid or self.grid)
        rows = self.class_tokens if self.class_positions else 0
        patch_positions = positions[:, rows:]
        if ids is not None:
            patch_positions = gather_tokens(patch_positions, ids)
        x: Tensor = self.patch_embed(patches) + patch_positions
        if self.class_tokens:
            cls = self.cls_token + positions[:, :rows] if rows else self.cls_token  # (1, C, D)
            x = torch.cat([cls.expand(patches.shape[0], -1, -1), x], dim=1)
        return x

    def drop_path_rates(self) -> float | list[float]:
        """Of each block, or of the last one where they grow linearly from 0."""
        return float(self.section.drop_path)


def _shrink(
    x: Tensor, ids: Tensor | None, hook: Hook, number: int, class_tokens: int
) -> tuple[Tensor, Tensor | None]:
    """Class tokens and the tokens that a hook keeps, and the ids of the kept tokens."""
    cls, tokens = x[:, :class_tokens], x[:, class_tokens:]
    if ids is None:
        ids = torch.arange(tokens.shape[1], device=x.device).expand(len(x), -1)
    kept = hook(number, tokens, ids)
    if kept is None:
        return x, ids
    rows = (kept.unsqueeze(2) == ids.unsqueeze(1)).int().argmax(dim=2)  # (B, K) places in x
    return torch.cat([cls, gather_tokens(tokens, rows)], dim=1), kept
