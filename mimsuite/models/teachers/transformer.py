"""The frozen vision transformers of CLIP and DINO, with our names for their parts.

Letters: B batch, N tokens of the grid, D width, P projected width.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from timm.layers import QuickGELU
from torch import Tensor, nn

from mimsuite.config.keys.teachers import ViTTeacherSection
from mimsuite.errors import UserError
from mimsuite.models.attention import attention_inputs, cls_attention, split_heads
from mimsuite.models.blocks import Block
from mimsuite.models.teachers.base import Backbone, TeacherFeatures, Wanted
from mimsuite.tokens import resize_positions


@dataclass(frozen=True)
class Shape:
    """Options of the architecture, besides the sizes in the section.

    Attributes:
        norm_eps: epsilon of all layer norms.
        pre_norm: CLIP's norm of the embeddings; its patch embedding has no bias.
        quick_gelu: ``x * sigmoid(1.702 x)`` in place of GELU.
        projection: width of CLIP's joint space; ``None``: no projection after the last norm.
    """

    norm_eps: float
    pre_norm: bool = False
    quick_gelu: bool = False
    projection: int | None = None


class FrozenViT(Backbone):
    """Class token, learnt positions, pre-norm blocks, a last norm and an optional projection."""

    def __init__(self, section: ViTTeacherSection, grid: tuple[int, int], shape: Shape) -> None:
        super().__init__()
        width, patch = section.width, section.patch_size
        self.patch_embed = nn.Conv2d(3, width, patch, stride=patch, bias=not shape.pre_norm)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(torch.randn(1, 1 + grid[0] * grid[1], width) * 0.02)
        norm = nn.LayerNorm(width, eps=shape.norm_eps) if shape.pre_norm else nn.Identity()
        self.pre_norm = norm
        ratio, eps = section.mlp_ratio, shape.norm_eps
        blocks = [Block(width, section.heads, ratio, eps) for _ in range(section.blocks)]
        if shape.quick_gelu:
            for block in blocks:
                block.mlp.act = QuickGELU()
        self.blocks = nn.ModuleList(blocks)
        self.norm = nn.LayerNorm(width, eps=shape.norm_eps)
        self.projection: nn.Module = nn.Identity()
        if shape.projection is not None:
            self.projection = nn.Linear(width, shape.projection, bias=False)

    def last_norm(self) -> nn.Module | None:
        return self.norm

    def forward(self, images: Tensor, wanted: Wanted) -> TeacherFeatures:
        x = self.patch_embed(images).flatten(2).transpose(1, 2)  # (B, N, D)
        x = torch.cat([self.cls_token.expand(len(x), -1, -1), x], dim=1) + self.pos_embed
        x = self.pre_norm(x)
        numbers = {*wanted.qkv, *([len(self.blocks)] if wanted.cls_attention else [])}
        hidden = {}
        with attention_inputs(list(self.blocks), numbers) as inputs:
            for number, block in enumerate(self.blocks, start=1):
                x = block(x)
                if number in wanted.hidden:
                    hidden[number] = x
        qkv = {n: split_heads(self.blocks[n - 1].attn, tokens) for n, tokens in inputs.items()}
        x = self.projection(self.norm(x))  # (B, 1 + N, P)
        return TeacherFeatures(
            cls=x[:, 0],
            tokens=x[:, 1:],
            hidden=hidden,
            cls_attention=cls_attention(qkv[len(self.blocks)], 1) if wanted.cls_attention else None,
            qkv={number: qkv[number] for number in wanted.qkv},
        )


def load_state(
    vit: FrozenViT,
    state: Mapping[str, Tensor],
    section: ViTTeacherSection,
    grid: tuple[int, int],
    key: str,
) -> None:
    """Load weights under our names into a transformer; blocks after ``section.layer`` are left out.

    Positions are resized bicubically without antialiasing, as in the published methods.

    Raises:
        UserError: width, depth, patch size or grid contradict the recipe.
    """
    depth = len({name.split(".")[1] for name in state if name.startswith("blocks.")})
    if depth != section.depth:
        raise UserError(f"{key}.weights has {depth} blocks: set {key}.depth={depth}")
    table = state["pos_embed"]
    side = round((table.shape[1] - 1) ** 0.5)
    if side * side != table.shape[1] - 1:
        raise UserError(f"{key}.weights: {table.shape[1] - 1} positions are no square grid")
    taken = {name: tensor for name, tensor in state.items() if _is_run(name, section.blocks)}
    expected = vit.state_dict()
    for name in expected:
        if name not in taken:
            raise UserError(f"{key}.weights lacks {name}, or has another layout")
    if state["patch_embed.weight"].shape[0] != section.width:
        width = state["patch_embed.weight"].shape[0]
        raise UserError(f"{key}.weights has width {width}: set {key}.width={width}")
    taken["pos_embed"] = resize_positions(table, (side, side), grid)
    for name, tensor in expected.items():
        if taken[name].shape != tensor.shape:
            raise UserError(
                f"{key}.weights: {name} is {tuple(taken[name].shape)}, the recipe's {key} makes "
                f"it {tuple(tensor.shape)}: check its patch_size, width and projection"
            )
    vit.load_state_dict({name: taken[name] for name in expected})


def _is_run(name: str, blocks: int) -> bool:
    return not name.startswith("blocks.") or int(name.split(".")[1]) < blocks
