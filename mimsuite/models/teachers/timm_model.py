"""Any timm model as a teacher, from a weights file with timm's own key names.

Letters: B batch, C class tokens, N tokens, D width.
"""

from __future__ import annotations

from typing import Any

import timm
from torch import Tensor, nn

from mimsuite.config.keys.teachers import TimmTeacherSection
from mimsuite.errors import UserError
from mimsuite.models.attention import attention_inputs, cls_attention, split_heads
from mimsuite.models.teachers.base import Backbone, TeacherFeatures, Wanted
from mimsuite.models.teachers.efficientnet import FeatureMap
from mimsuite.models.teachers.files import read_tensors
from mimsuite.tokens import resize_positions


class TimmViT(Backbone):
    """A timm vision transformer, with or without leading class or register tokens."""

    def __init__(self, vit: Any) -> None:
        super().__init__()
        self.vit = vit

    def last_norm(self) -> nn.Module | None:
        norm: nn.Module = self.vit.norm
        return norm

    def forward(self, images: Tensor, wanted: Wanted) -> TeacherFeatures:
        vit = self.vit
        depth, prefix = len(vit.blocks), vit.num_prefix_tokens
        numbers = {*wanted.qkv, *([depth] if wanted.cls_attention else [])}
        if numbers and getattr(vit, "rope", None) is not None:  # DINOv3, EVA
            raise UserError(
                "this timm teacher has rotary position embeddings: its features can be read, its "
                "attention cannot. Use mask.kind=random, or a teacher such as DINOv2"
            )
        hidden: dict[int, Tensor] = {}
        hooks = [
            vit.blocks[number - 1].register_forward_hook(_keeper(hidden, number))
            for number in wanted.hidden
        ]
        with attention_inputs(vit.blocks, numbers) as inputs:
            x = vit.forward_features(images)  # (B, C + N, D), through the last norm
        for hook in hooks:
            hook.remove()
        qkv = {n: split_heads(vit.blocks[n - 1].attn, tokens) for n, tokens in inputs.items()}
        return TeacherFeatures(
            cls=x[:, 0] if prefix else None,
            tokens=x[:, prefix:],
            hidden=hidden,
            cls_attention=cls_attention(qkv[depth], prefix) if wanted.cls_attention else None,
            qkv={number: qkv[number] for number in wanted.qkv},
        )


def load(
    section: TimmTeacherSection, grid: tuple[int, int], key: str, weights: bool = True
) -> Backbone:
    """The timm model for a grid of tokens.

    Raises:
        UserError: no such model, no file, or a shape that contradicts the recipe.
    """
    if section.model not in timm.list_models() and section.model not in timm.list_pretrained():
        raise UserError(f"{key}.model: timm has no model '{section.model}'")
    where = f"timm's {section.model} as model.safetensors, from huggingface.co/timm"
    state = read_tensors(section.weights, key, where) if weights else None
    statistics = timm.get_pretrained_cfg(section.model)
    backbone = _map(section, key, state) if section.depth == 0 else _vit(section, grid, key, state)
    if statistics is not None:
        backbone.statistics = tuple(statistics.mean), tuple(statistics.std)
    return backbone


def _vit(
    section: TimmTeacherSection, grid: tuple[int, int], key: str, state: dict[str, Tensor] | None
) -> Backbone:
    size = section.input_size(grid)
    vit: Any = timm.create_model(section.model, pretrained=False, img_size=size, num_classes=0)
    own = {
        "patch_size": vit.patch_embed.patch_size[0],
        "width": vit.embed_dim,
        "depth": len(vit.blocks),
        "heads": vit.blocks[0].attn.num_heads,
    }
    _require(section, key, own)
    vit.blocks = vit.blocks[: section.blocks]
    if state is not None:
        if "pos_embed" in state:
            state["pos_embed"] = _positions(state["pos_embed"], vit.pos_embed, grid)
        _load(vit, state, key)
    backbone = TimmViT(vit)
    backbone.notes = [] if state is None else _unused(vit, state)
    return backbone


def _unused(vit: Any, state: dict[str, Tensor]) -> list[str]:
    """A line about tensors of the file that the model does not have."""
    used = vit.state_dict()
    left = [name for name in state if name not in used and not name.startswith("blocks.")]
    return [f"teacher: not taken from its file: {', '.join(left[:20])}"] if left else []


def _map(section: TimmTeacherSection, key: str, state: dict[str, Tensor] | None) -> Backbone:
    """The last feature map of stride ``section.patch_size``."""
    network: Any = timm.create_model(section.model, pretrained=False, features_only=True)
    strides = network.feature_info.reduction()
    if section.patch_size not in strides:
        raise UserError(f"{key}.patch_size: {section.model} has maps of stride {strides}")
    at = len(strides) - 1 - strides[::-1].index(section.patch_size)
    _require(section, key, {"width": network.feature_info.channels()[at]})
    options: dict[str, Any] = {"features_only": True, "out_indices": (at,)}
    network = timm.create_model(section.model, pretrained=False, **options)
    if state is not None:
        _load(network, state, key)
    return FeatureMap(network)


def _keeper(kept: dict[int, Tensor], number: int) -> Any:
    return lambda module, args, output: kept.__setitem__(number, output)


def _require(section: TimmTeacherSection, key: str, own: dict[str, int]) -> None:
    for name, value in own.items():
        if getattr(section, name) != value:
            raise UserError(
                f"{key}.{name} is {getattr(section, name)}, timm's {section.model} has {value}: "
                f"set {key}.{name}={value}"
            )


def _positions(table: Tensor, own: Tensor, grid: tuple[int, int]) -> Tensor:
    """The positions of the file, resized to ``grid`` without antialiasing."""
    tokens = grid[0] * grid[1]
    prefix = own.shape[1] - tokens
    side = round((table.shape[1] - prefix) ** 0.5)
    return resize_positions(table, (side, side), grid)


def _load(network: Any, state: dict[str, Tensor], key: str) -> None:
    own = network.state_dict()
    for name, tensor in own.items():
        if name not in state or state[name].shape != tensor.shape:
            fault = "lacks" if name not in state else "has another shape of"
            raise UserError(f"{key}.weights {fault} {name}: it belongs to another model")
    network.load_state_dict({name: state[name] for name in own})
