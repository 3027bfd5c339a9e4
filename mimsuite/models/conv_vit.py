"""ConvViT: two stages of masked convolutions before a vision transformer (ConvMAE).

MCMAE: Masked Convolution Meets Masked Autoencoders (Gao et al., arXiv:2205.03892, section 3). The
mask is drawn on the grid of the last stage and applies to the finer grids of the earlier stages.
Published code computes these stages everywhere and multiplies by the mask before each depthwise
convolution. Masked pixels then never influence visible ones, because all other layers (1 x 1
convolutions, norms, non-overlapping patch embeddings) stay within a token. So here no stage
computes masked tokens: only the depthwise convolutions see a whole map, with zeros at masked
tokens. The function and its gradients equal the published ones.

Letters: B batch, N tokens of the grid, V visible tokens, S pixels of a stage along a token's side,
d width of a stage, D width of the last stage, P = p*p*C numbers of an image patch. The "pixels" of
a stage are the points of its map. The pixels of a token are stored together, in raster order:
(B, V, S*S, d).
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mimsuite.config.keys.encoders import ConvViTSection
from mimsuite.masking import gather_tokens
from mimsuite.models.blocks import Block, init_linear, run_blocks
from mimsuite.models.drop_path import Keep, branch, drop_path
from mimsuite.models.encoder import ImageEncoder
from mimsuite.models.features import Features
from mimsuite.noise import Noise
from mimsuite.tokens import resize_positions, sincos_2d
from mimsuite.weights.names import Names


@dataclass(frozen=True)
class PixelMap:
    """Locations of the visible tokens' pixels in a stage's map.

    Attributes:
        size: (B, H, W) of the map.
        rows: (B*V*S*S,) int64 rows of the pixels in the map flattened to (B*H*W, d).
    """

    size: tuple[int, int, int]
    rows: Tensor

    @classmethod
    def of(cls, ids: Tensor, grid: tuple[int, int], side: int) -> PixelMap:
        """The map with ``side`` x ``side`` pixels per token, for (B, V) token ids of ``grid``."""
        height, width = grid[0] * side, grid[1] * side
        axis = torch.arange(side, device=ids.device)
        corner = (ids // grid[1]) * side * width + (ids % grid[1]) * side  # (B, V)
        within = (axis[:, None] * width + axis).flatten()  # (S*S,)
        sample = torch.arange(len(ids), device=ids.device) * height * width
        rows = sample[:, None, None] + corner[..., None] + within  # (B, V, S*S)
        return cls((len(ids), height, width), rows.flatten())

    def spread(self, pixels: Tensor) -> Tensor:
        """(B, V, S*S, d) -> (B, d, H, W), channels last in memory, zero in masked tokens."""
        batch, height, width = self.size
        d = pixels.shape[-1]
        flat = pixels.new_zeros(batch * height * width, d)
        flat = flat.index_copy(0, self.rows, pixels.reshape(-1, d))
        return flat.view(batch, height, width, d).permute(0, 3, 1, 2)

    def pick(self, image: Tensor, like: Tensor) -> Tensor:
        """The visible pixels of a (B, d, H, W) map, in the shape of ``like``."""
        flat = image.permute(0, 2, 3, 1).reshape(-1, image.shape[1])
        return flat.index_select(0, self.rows).view(like.shape)


def windows(pixels: Tensor, stride: int) -> Tensor:
    """Input windows of a convolution of kernel size and stride ``stride``.

    (B, V, S*S, d) -> (B, V, (S/stride)**2, stride*stride*d). A window is (row, column, channel),
    channel fastest.
    """
    batch, tokens, count, d = pixels.shape
    side = round(count**0.5)
    steps = side // stride
    split = pixels.view(batch, tokens, steps, stride, steps, stride, d)
    return split.transpose(3, 4).reshape(batch, tokens, steps * steps, stride * stride * d)


class StepConv(nn.Conv2d):
    """A non-overlapping convolution, applied to (..., stride*stride*d) :func:`windows`.

    With ``stride`` 1 it is a 1 x 1 convolution. The weight has the shape of the published kernel.
    """

    def __init__(self, in_width: int, out_width: int, stride: int = 1) -> None:
        super().__init__(in_width, out_width, kernel_size=stride, stride=stride)

    def forward(self, windows: Tensor) -> Tensor:
        return F.linear(windows, self.weight.permute(0, 2, 3, 1).flatten(1), self.bias)


class ConvEmbed(nn.Module):
    """Patch embedding of a stage: convolution, layer norm, GELU."""

    def __init__(self, in_width: int, width: int, stride: int, eps: float) -> None:
        super().__init__()
        self.proj = StepConv(in_width, width, stride)
        self.norm = nn.LayerNorm(width, eps=eps)
        self.act = nn.GELU()

    def forward(self, windows: Tensor) -> Tensor:
        """(..., stride*stride*d) -> (..., width)."""
        embedded: Tensor = self.act(self.norm(self.proj(windows)))
        return embedded


class ConvMlp(nn.Module):
    """Two 1 x 1 convolutions with a GELU between them."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1, self.act, self.fc2 = StepConv(width, hidden), nn.GELU(), StepConv(hidden, width)

    def forward(self, pixels: Tensor) -> Tensor:
        mixed: Tensor = self.fc2(self.act(self.fc1(pixels)))
        return mixed


class CBlock(nn.Module):
    """Masked convolution block: ``x += Conv1x1(DWConv(m * Conv1x1(LN x))); x += MLP(LN x)``.

    ``m`` is 1 in visible tokens and 0 in masked ones.
    """

    def __init__(self, width: int, kernel: int, mlp_ratio: float, eps: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=eps)
        self.conv1, self.conv2 = StepConv(width, width), StepConv(width, width)
        self.attn = nn.Conv2d(width, width, kernel, padding=kernel // 2, groups=width)
        self.norm2 = nn.LayerNorm(width, eps=eps)
        self.mlp = ConvMlp(width, int(width * mlp_ratio))

    def forward(self, x: Tensor, where: PixelMap, keep: Keep = None) -> Tensor:
        """(B, V, S*S, d) -> the same shape."""
        first, second = keep or (None, None)
        pixels = self.conv1(self.norm1(x))
        pixels = where.pick(self.attn(where.spread(pixels)), like=x)
        x = x + branch(self.conv2(pixels), first)
        return x + branch(self.mlp(self.norm2(x)), second)


class ConvStage(nn.Module):
    """Patch embedding and masked convolution blocks, at one resolution."""

    def __init__(self, section: ConvViTSection, number: int) -> None:
        super().__init__()
        width = section.conv_width[number]
        in_width = section.conv_width[number - 1] if number else section.in_channels
        eps = section.conv_norm_eps
        self.stride = section.conv_strides[number]
        self.embed = ConvEmbed(in_width, width, self.stride, eps)
        self.blocks = nn.ModuleList(
            CBlock(width, section.conv_kernel, section.conv_mlp_ratio[number], eps)
            for _ in range(section.conv_depth[number])
        )

    def forward(
        self, pixels: Tensor, ids: Tensor, grid: tuple[int, int], keep: list[Keep]
    ) -> tuple[Tensor, PixelMap]:
        """Pixels of the previous stage -> pixels of this stage, and their locations."""
        x = self.embed(windows(pixels, self.stride))  # (B, V, S*S, d)
        where = PixelMap.of(ids, grid, round(x.shape[2] ** 0.5))
        for block, factors in zip(self.blocks, keep, strict=True):
            x = block(x, where, keep=factors)
        return x, where


class ConvViT(ImageEncoder):
    """Encoder of visible patches without class token; see the module's docstring."""

    class_tokens = 0
    embeddings = (*ImageEncoder.embeddings, "stage1.", "stage2.", "token_embed.")
    published = Names(
        [
            ("encoder.stage1.embed.", "patch_embed1."),
            ("encoder.stage1.blocks.", "blocks1."),
            ("encoder.stage2.embed.", "patch_embed2."),
            ("encoder.stage2.blocks.", "blocks2."),
            ("encoder.patch_embed.", "patch_embed3."),
            ("encoder.token_embed.", "patch_embed4."),
            ("encoder.blocks.", "blocks3."),
            ("encoder.fusion.0.", "stage1_output_decode."),
            ("encoder.fusion.1.", "stage2_output_decode."),
            ("encoder.norm.", "norm."),
            ("encoder.pos_embed", "pos_embed"),
        ]
    )
    published_mark: ClassVar[str] = "patch_embed1."
    section: ConvViTSection

    def __init__(self, section: ConvViTSection) -> None:
        super().__init__(section)
        width, strides = section.width, section.conv_strides
        self.stage1, self.stage2 = ConvStage(section, 0), ConvStage(section, 1)
        last = section.patch_size // (strides[0] * strides[1])  # pixels of stage 2 along a token
        self.patch_embed = ConvEmbed(section.conv_width[1], width, last, section.conv_norm_eps)
        self.token_embed = nn.Linear(width, width)
        positions = sincos_2d(width, section.grid)[None]
        self.pos_embed = nn.Parameter(positions, requires_grad=section.trained_positions)
        self.blocks = nn.ModuleList(
            Block(width, section.heads, section.mlp_ratio, section.norm_eps)
            for _ in range(section.depth)
        )
        self.fusion = nn.ModuleList()
        if section.fusion:
            sides = (section.patch_size // strides[0], last)
            self.fusion.extend(
                StepConv(d, width, side) for d, side in zip(section.conv_width, sides, strict=True)
            )
        norm = nn.LayerNorm(width, eps=section.norm_eps)
        self.norm = norm if section.final_norm else nn.Identity()
        self.apply(init_linear)
        nn.init.xavier_uniform_(self.patch_embed.proj.weight.view(width, -1))

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

        With ``ids`` (pretraining) and ``fusion``, the maps of the first two stages are added to
        the last stage's output before its norm (multi-scale fusion). Without ``ids`` (all published
        transfers) they are not added, and the output's ``maps`` holds them.

        Args:
            patches: (B, V, P).
            ids: (B, V) ids of the patches; ``None`` = all of ``grid``, in raster order.
            noise: keyed noise for drop path; needed while training with ``drop_path`` > 0.
            layers: numbers, from 1, of the last stage's blocks whose outputs are also returned;
                0: the input of the first block.
            grid: rows and columns of patches; positions are resized to it. ``None``: as trained.
        """
        grid = grid or self.grid
        batch, count = patches.shape[:2]
        given = torch.arange(count, device=patches.device).expand(batch, -1) if ids is None else ids
        first, second = self.section.conv_depth
        depth = first + second + self.depth  # the rate of drop path grows over all stages
        keep = drop_path(self, self.section.drop_path, depth, noise)
        pixels = patches.view(batch, count, self.section.patch_size**2, -1)
        x1, where1 = self.stage1(pixels, given, grid, keep[:first])
        x2, where2 = self.stage2(x1, given, grid, keep[first : first + second])
        x = self.patch_embed(x2.flatten(2))  # (B, V, D): a token is one window
        positions = resize_positions(self.pos_embed, self.grid, grid)
        x = self.token_embed(x) + gather_tokens(positions, given)
        x, outputs = run_blocks(self.blocks, x, keep[first + second :], layers)
        if ids is not None:
            for conv, stage in zip(self.fusion, (x1, x2), strict=False):
                x = x + conv(stage.flatten(2))
        x = self.norm(x)
        features = Features(cls=x[:, :0], tokens=x, layers=outputs)
        if ids is None:
            stages = [(where1, x1), (where2, x2)]
            features.maps.extend(
                (where.spread(stage).permute(0, 2, 3, 1).flatten(1, 2), where.size[1:])
                for where, stage in stages
            )
            features.maps.append((x, grid))
        return features
