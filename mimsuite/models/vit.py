"""The plain vision transformer that sees only the tokens it is given.

Letters: B batch, N patches, V visible patches, P = p*p*C pixels of a patch, D width.
Parameter names below the encoder are those of timm's ``VisionTransformer`` and of MAE's release.
"""

from __future__ import annotations

from collections.abc import Collection

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mimsuite.batch import Batch
from mimsuite.config.encoders import ViTSection
from mimsuite.masking import gather_tokens
from mimsuite.models.blocks import Block, drop_path_factors, init_linear
from mimsuite.models.encoder import Encoder
from mimsuite.models.features import Features
from mimsuite.noise import Noise
from mimsuite.tokens import patchify, resize_positions, sincos_2d


class PatchEmbed(nn.Module):
    """Linear embedding of patch vectors.

    The weight is kept as the published convolution kernel (D, C, p, p); a linear map of the
    gathered patches is the same function, computed for visible patches only.
    """

    def __init__(self, channels: int, patch: int, width: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(channels, width, kernel_size=patch, stride=patch)
        nn.init.xavier_uniform_(self.proj.weight.view(width, -1))

    def forward(self, patches: Tensor) -> Tensor:
        """(B, V, P) patch vectors, channel fastest -> (B, V, D)."""
        weight = self.proj.weight.permute(0, 2, 3, 1).flatten(1)  # (D, p*p*C)
        return F.linear(patches, weight, self.proj.bias)


class ViT(Encoder):
    """Encoder of visible patches, with one class token and absolute positions."""

    def __init__(self, section: ViTSection) -> None:
        super().__init__(section)
        self.grid, self.width, self.depth = section.grid, section.width, section.depth
        self.patch_embed = PatchEmbed(section.in_channels, section.patch_size, section.width)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, section.width))
        positions = F.pad(sincos_2d(section.width, section.grid), (0, 0, 1, 0))[None]  # cls row 0
        self.pos_embed = nn.Parameter(positions, requires_grad=section.trained_positions)
        self.blocks = nn.ModuleList(
            Block(section.width, section.heads, section.mlp_ratio, section.norm_eps)
            for _ in range(section.depth)
        )
        self.norm = nn.LayerNorm(section.width, eps=section.norm_eps)
        nn.init.normal_(self.cls_token, std=0.02)
        self.apply(init_linear)

    def patches(self, images: Tensor, ids: Tensor | None = None) -> Tensor:
        """Patch vectors of (B, C, H, W) images, all (B, N, P) or those of ``ids``."""
        return patchify(images, self.section.patch_size, ids)

    def forward(
        self,
        patches: Tensor,
        ids: Tensor | None = None,
        *,
        noise: Noise | None = None,
        layers: Collection[int] = (),
        grid: tuple[int, int] | None = None,
    ) -> Features:
        """Encode patch vectors.

        Args:
            patches: (B, V, P).
            ids: (B, V) which patches they are; ``None`` = all of ``grid``, in raster order.
            noise: keyed noise for drop path; needed while training with ``drop_path`` > 0.
            layers: numbers, from 1, of the blocks whose output is wanted too.
            grid: patches per column and row where it is not the trained one; positions are
                resized to it.
        """
        positions = resize_positions(self.pos_embed, self.grid, grid or self.grid)
        cls = self.cls_token + positions[:, :1]  # (1, 1, D)
        patch_positions = positions[:, 1:]
        if ids is not None:
            patch_positions = gather_tokens(patch_positions, ids)
        x = torch.cat(
            [cls.expand(len(patches), -1, -1), self.patch_embed(patches) + patch_positions], dim=1
        )
        keep = self._drop_path(noise)
        outputs: dict[int, Tensor] = {}
        for number, block in enumerate(self.blocks, start=1):
            x = block(x, keep=keep[number - 1])
            if number in layers:
                outputs[number] = x
        x = self.norm(x)
        return Features(cls=x[:, :1], tokens=x[:, 1:], layers=outputs)

    def encode(
        self, batch: Batch, *, noise: Noise | None = None, layers: Collection[int] = ()
    ) -> Features:
        """The unmasked call of every probe: all patches of ``batch.image``, of any size."""
        images = batch.image
        patch = self.section.patch_size
        grid = (images.shape[2] // patch, images.shape[3] // patch)
        return self(self.patches(images), noise=noise, layers=layers, grid=grid)

    def layer_id(self, name: str) -> int:
        """Depth of a parameter for layer decay: 0 embeddings, i + 1 block i, depth + 1 the rest."""
        if name.startswith(("cls_token", "pos_embed", "patch_embed")):
            return 0
        if name.startswith("blocks."):
            return int(name.split(".")[1]) + 1
        return self.depth + 1

    def _drop_path(self, noise: Noise | None) -> list[tuple[Tensor, Tensor] | None]:
        if not self.training or self.section.drop_path == 0:
            return [None] * self.depth
        if noise is None:
            raise ValueError("drop_path > 0 needs keyed noise while training")
        uniform = noise.rows("drop_path", 2 * self.depth)
        return [*drop_path_factors(uniform, self.section.drop_path)]
