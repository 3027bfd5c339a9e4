"""Weights of an image transformer in one of clips, scans or rasters (inflation; Carreira and
Zisserman, arXiv:1705.07750).

Kernels of patches become kernels of tubelets or cubes. The blocks are the same: a bias of keys adds
the same number to all scores of a query and changes no softmax, so leaving it out is exact.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from mimsuite.checkpoints.weights import Weights
from mimsuite.config.keys.encoders import ViTSection
from mimsuite.config.keys.section import Section

_KERNEL = "encoder.patch_embed.proj.weight"
_LEFT = ("encoder.cls_token", "encoder.pos_embed")
_SHARED = ("patch_size", "in_channels", "width", "depth", "heads", "mlp_ratio", "norm_eps")


def inflated(
    weights: Weights, theirs: Section | None, ours: Section | None
) -> tuple[Weights, list[str]]:
    """Weights of images as those of an encoder of clips, and lines that report it, where
    ``model.encoder.inflate`` asks for it; others as they are."""
    way = getattr(ours, "inflate", None)
    if (
        way is None
        or ours is None
        or not isinstance(theirs, ViTSection)
        or _KERNEL not in weights.state
    ):
        return weights, []
    depth = ours.tubelet  # type: ignore[attr-defined]
    state: dict[str, Tensor] = {}
    for name, tensor in weights.state.items():
        if name == _KERNEL:
            state[name] = inflate_kernel(tensor, depth, way)
        elif name.startswith("encoder.blocks.") and name.endswith(".attn.qkv.bias"):
            queries, _, values = tensor.chunk(3)
            stem = name.removesuffix("qkv.bias")
            state |= {f"{stem}q_bias": queries.clone(), f"{stem}v_bias": values.clone()}
        elif name not in _LEFT:
            state[name] = tensor
    encoder = ours.model_copy(update={key: getattr(theirs, key) for key in _SHARED})
    recipe: Any = weights.resolved.recipe
    model = recipe.model.model_copy(update={"encoder": encoder})
    resolved = replace(weights.resolved, recipe=recipe.model_copy(update={"model": model}))
    lines = [
        f"{_KERNEL}: inflated to {depth} deep ({way})",
        "encoder: no class token, positions of this model's own, biases of keys left out",
    ]
    return replace(weights, state=state, resolved=resolved), lines


def inflate_kernel(kernel: Tensor, depth: int, way: str) -> Tensor:
    """(D, C, p, p) -> (D, C, depth, p, p). ``mean``: each layer a share, so that the output for the
    same image in every layer is unchanged; ``centre``: all in the middle layer."""
    if way == "mean":
        return kernel.unsqueeze(2).repeat(1, 1, depth, 1, 1) / depth
    deep = torch.zeros(*kernel.shape[:2], depth, *kernel.shape[2:], dtype=kernel.dtype)
    deep[:, :, depth // 2] = kernel
    return deep
