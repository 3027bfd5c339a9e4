"""VideoMAE's encoder: a transformer that sees only the tubelets it is given.

Letters: B batch, N tubelets, V visible ones, P = t*p*p*C pixels of a tubelet, D width.
Parameter names below the encoder are those of the published code.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from mimsuite.batch import Batch
from mimsuite.masking import gather_tokens
from mimsuite.models.blocks import drop_path_factors, init_linear
from mimsuite.models.encoder import Encoder
from mimsuite.models.features import Features
from mimsuite.models.video_blocks import VideoBlock
from mimsuite.noise import Noise
from mimsuite.tokens import resize_clip_positions, sinusoid_1d, tubelets


class TubeletEmbed(nn.Module):
    """Linear embedding of tubelet vectors.

    The weight is kept as the published convolution kernel (D, C, t, p, p); a linear map of the
    gathered tubelets is the same function, computed for visible ones only.
    """

    def __init__(self, channels: int, tubelet: int, patch: int, width: int) -> None:
        super().__init__()
        size = (tubelet, patch, patch)
        self.proj = nn.Conv3d(channels, width, kernel_size=size, stride=size)

    def forward(self, vectors: Tensor) -> Tensor:
        """(B, V, P) tubelet vectors, channel fastest -> (B, V, D)."""
        weight = self.proj.weight.permute(0, 2, 3, 4, 1).flatten(1)  # (D, t*p*p*C)
        return F.linear(vectors, weight, self.proj.bias)


class VideoViT(Encoder):
    """Encoder of visible tubelets, without class token; positions are fixed and not stored.

    Attributes:
        view: that :meth:`encode` reads.
    """

    pos_embed: Tensor
    view: ClassVar[str] = "clip"

    def __init__(self, section: Any) -> None:
        super().__init__(section)
        self.grid, self.width, self.depth = section.grid, section.width, section.depth
        self.patch_embed = TubeletEmbed(
            section.in_channels, section.tubelet, section.patch_size, section.width
        )
        trained = section.grid_of(section.trained_size or section.size)
        self.register_buffer("pos_embed", self.positions(section.width, trained, self.grid), False)
        self.blocks = nn.ModuleList(
            VideoBlock(
                section.width,
                section.heads,
                section.mlp_ratio,
                section.norm_eps,
                section.layer_scale,
                section.cosine_attention,
            )
            for _ in range(section.depth)
        )
        norm = nn.LayerNorm(section.width, eps=section.norm_eps)
        self.norm = norm if section.final_norm else nn.Identity()
        self.apply(init_linear)  # the convolution keeps torch's start, as published

    @staticmethod
    def positions(
        width: int, trained: tuple[int, int, int], grid: tuple[int, int, int] | None = None
    ) -> Tensor:
        """(1, N, width) fixed positions; see :func:`positions`."""
        return positions(width, trained, grid)

    def tubelets(self, clips: Tensor, ids: Tensor | None = None) -> Tensor:
        """Tubelet vectors of (B, C, T, H, W) clips, all (B, N, P) or those of ``ids``."""
        return tubelets(clips, self.section.tubelet, self.section.patch_size, ids)

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
            grid: tokens along time, per column and row where it is not the trained one; positions
                are resized to it.
        """
        table = resize_clip_positions(self.pos_embed, self.grid, grid or self.grid)
        if ids is not None:
            table = gather_tokens(table, ids)
        x = self.patch_embed(vectors) + table  # (B, V, D)
        keep = self._drop_path(noise)
        outputs: dict[int, Tensor] = {}
        for number, block in enumerate(self.blocks, start=1):
            x = block(x, keep=keep[number - 1])
            if number in layers:
                outputs[number] = x
        x = self.norm(x)
        return Features(cls=x[:, :0], tokens=x, layers=outputs)

    def encode(
        self, batch: Batch, *, noise: Noise | None = None, layers: Collection[int] = ()
    ) -> Features:
        """The unmasked call of every probe: all tubelets of its ``view``, of any size."""
        clips = batch.views[self.view]
        _, _, frames, height, width = clips.shape
        grid = self.section.grid_of((frames, height, width))
        features: Features = self(self.tubelets(clips), noise=noise, layers=layers, grid=grid)
        return features

    def sample(self) -> tuple[str, tuple[int, ...]]:
        return self.view, (self.section.in_channels, *self.section.size)

    def layer_id(self, name: str) -> int:
        """Depth of a parameter for layer decay: 0 embeddings, i + 1 block i, depth + 1 the rest."""
        if name.startswith("patch_embed"):
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


def positions(
    width: int, trained: tuple[int, int, int], grid: tuple[int, int, int] | None = None
) -> Tensor:
    """(1, N, width) fixed positions of the grid ``trained``, resized to ``grid``."""
    frames, rows, columns = trained
    table = sinusoid_1d(frames * rows * columns, width)[None]
    return resize_clip_positions(table, trained, grid or trained)
