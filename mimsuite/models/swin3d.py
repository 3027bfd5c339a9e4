"""Swin transformer on volumes (Liu et al., arXiv:2103.14030), as in NeRF-MAE.

Four stages of increasingly coarse tokens. Attention is within windows, which are shifted in every
second block. Windows need whole volumes, so masked tokens are replaced and not dropped.

Letters: B batch, (X, Y, Z) tokens along the axes, C width of a stage.
"""

from __future__ import annotations

from collections.abc import Collection

import torch
import torch.nn.functional as F
from timm.layers import Mlp
from torch import Tensor, nn

from mimsuite.batch import Batch
from mimsuite.config.keys.volume import Swin3DSection
from mimsuite.models.drop_path import Keep, branch, drop_path
from mimsuite.models.encoder import Encoder
from mimsuite.models.features import Features
from mimsuite.models.windows import WindowAttention
from mimsuite.noise import Noise
from mimsuite.tokens import sincos_3d

_EIGHT = ((0, 0, 0), (1, 0, 0), (0, 1, 0), (1, 1, 0), (0, 0, 1), (1, 0, 1), (0, 1, 1), (1, 1, 1))


class VolumeEmbed(nn.Module):
    """Cubes of voxels -> tokens: a non-overlapping convolution, then a layer norm."""

    def __init__(self, channels: int, patch: int, width: int, eps: float) -> None:
        super().__init__()
        self.proj = nn.Conv3d(channels, width, kernel_size=patch, stride=patch)
        self.norm = nn.LayerNorm(width, eps=eps)

    def forward(self, grids: Tensor) -> Tensor:
        """(B, in_channels, R, R, R) -> (B, X, Y, Z, C)."""
        return self.norm(self.proj(grids).permute(0, 2, 3, 4, 1))


class Merging(nn.Module):
    """Merges eight neighbours into one token of twice the width; pads odd sides with zeros."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(8 * width, eps=eps)
        self.reduction = nn.Linear(8 * width, 2 * width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, X, Y, Z, C) -> (B, X/2, Y/2, Z/2, 2 C)."""
        far = [size % 2 for size in x.shape[1:4]]
        x = F.pad(x, (0, 0, 0, far[2], 0, far[1], 0, far[0]))
        parts = [x[:, a::2, b::2, c::2] for a, b, c in _EIGHT]
        return self.reduction(self.norm(torch.cat(parts, dim=-1)))


class SwinBlock(nn.Module):
    """Pre-norm block: ``x += keep * Attn(LN x); x += keep * MLP(LN x)``."""

    def __init__(self, section: Swin3DSection, width: int, heads: int, shifted: bool) -> None:
        super().__init__()
        side, eps = section.window, section.norm_eps
        shift = side // 2 if shifted else 0
        self.norm1 = nn.LayerNorm(width, eps=eps)
        self.attn = WindowAttention(width, heads, (side, side, side), (shift, shift, shift))
        self.norm2 = nn.LayerNorm(width, eps=eps)
        self.mlp = Mlp(width, hidden_features=int(width * section.mlp_ratio), act_layer=nn.GELU)

    def forward(self, x: Tensor, keep: Keep = None) -> Tensor:
        """(B, X, Y, Z, C) -> the same shape; ``keep``: (B,) factors of the two branches."""
        first, second = keep or (None, None)
        x = x + branch(self.attn(self.norm1(x)), first)
        return x + branch(self.mlp(self.norm2(x)), second)


class Stage(nn.Module):
    """Blocks at one resolution; every stage after the first begins by merging."""

    def __init__(self, section: Swin3DSection, number: int) -> None:
        super().__init__()
        width, heads = section.width << number, section.heads[number]
        self.merge = Merging(width // 2, section.norm_eps) if number else None
        self.blocks = nn.ModuleList(
            SwinBlock(section, width, heads, shifted=bool(i % 2))
            for i in range(section.depths[number])
        )


class Swin3D(Encoder):
    """Encoder of whole volumes, without class tokens; its features are those of the last stage."""

    def __init__(self, section: Swin3DSection) -> None:
        super().__init__(section)
        self.grid = section.grid
        self.depth = sum(section.depths)
        self.width = section.width << 3
        self.patch_embed = VolumeEmbed(
            section.in_channels, section.patch_size, section.width, section.norm_eps
        )
        positions = sincos_3d(section.width, section.grid)[None]
        self.pos_embed = nn.Parameter(positions, requires_grad=False)
        self.stages = nn.ModuleList(Stage(section, number) for number in range(4))
        self.norm = nn.Identity()  # as published: the last stage has none
        self.apply(_init)

    def forward(
        self,
        grids: Tensor,
        fill: tuple[Tensor, Tensor] | None = None,
        *,
        noise: Noise | None = None,
        layers: Collection[int] = (),
    ) -> Features:
        """Encode volumes.

        Args:
            grids: (B, in_channels, R, R, R).
            fill: (B, X, Y, Z) bool, the tokens to replace, positions included, and (C,), their
                replacement.
            noise: keyed noise for drop path; needed while training with ``drop_path`` > 0.
            layers: numbers, from 1, of the blocks whose outputs are also returned.

        Returns:
            Features without class tokens; ``maps`` holds all four stages.
        """
        x = self.patch_embed(grids) + self.pos_embed
        if fill is not None:
            x = torch.where(fill[0].unsqueeze(-1), fill[1].to(x.dtype), x)
        keep = iter(drop_path(self, self.section.drop_path, self.depth, noise))
        outputs: dict[int, Tensor] = {}
        maps: list[tuple[Tensor, tuple[int, ...]]] = []
        number = 0
        for stage in self.stages:
            assert isinstance(stage, Stage)
            x = x if stage.merge is None else stage.merge(x)
            for block in stage.blocks:
                x, number = block(x, next(keep)), number + 1
                if number in layers:
                    outputs[number] = x.flatten(1, 3)
            maps.append((x.flatten(1, 3), tuple(x.shape[1:4])))
        tokens = self.norm(maps[-1][0])
        return Features(tokens[:, :0], tokens, outputs, maps, pools=("mean", "max"))

    def encode(
        self, batch: Batch, *, noise: Noise | None = None, layers: Collection[int] = ()
    ) -> Features:
        """Features of whole volumes, as every probe reads them."""
        return self(batch.views[self.section.view], noise=noise, layers=layers)

    def sample(self) -> tuple[str, tuple[int, ...]]:
        section = self.section
        return section.view, (section.in_channels, *[section.resolution] * 3)

    def layer_id(self, name: str) -> int:
        """Depth of a parameter for layer decay: 0 embeddings, i + 1 block i counted over stages.

        A merging layer counts with the block after it, all others as depth + 1.
        """
        if not name.startswith("stages."):
            return 0 if name.startswith(("patch_embed", "pos_embed")) else self.depth + 1
        _, stage, part, *rest = name.split(".")
        before = sum(self.section.depths[: int(stage)])
        return before + (int(rest[0]) if part == "blocks" else 0) + 1


def _init(module: nn.Module) -> None:
    """As published: truncated normal linear layers; convolutions keep torch's initialisation."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
