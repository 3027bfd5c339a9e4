"""timm: a state dict that ``timm.models.VisionTransformer`` loads strictly.

The encoder's names are timm's own. What has to be right besides is how the model is built:
LayerNorm eps 1e-6 and the kind of pooling. The line that builds it is printed, and kept in the
header.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from mimsuite.errors import UserError
from mimsuite.export.native import contiguous
from mimsuite.export.opened import Opened
from mimsuite.methods import Method
from mimsuite.models import ViT


def write_timm(opened: Opened, out: Path) -> list[str]:
    """Write the encoder, and a classifier's head, for timm.

    Raises:
        UserError: the encoder is no plain ViT.
    """
    tensors, settings = timm_state(opened.method)
    line = constructor(settings)
    metadata = {"format": "pt", "timm": json.dumps(settings), "constructor": line}
    save_file(tensors, out, metadata=metadata)
    return [
        "import timm, torch; from functools import partial",
        "from safetensors.torch import load_file",
        f"model = {line}",
        "model.load_state_dict(load_file(PATH), strict=True)",
    ]


def timm_state(method: Method) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors under timm's names, and the arguments of the ``VisionTransformer`` they are for."""
    encoder = require_vit(method, "timm")
    section = encoder.section
    settings: dict[str, Any] = {
        "img_size": section.image_size,
        "patch_size": section.patch_size,
        "in_chans": section.in_channels,
        "embed_dim": section.width,
        "depth": section.depth,
        "num_heads": section.heads,
        "mlp_ratio": section.mlp_ratio,
        "num_classes": 0,
        "global_pool": "token",
        "norm_eps": section.norm_eps,
    }
    tensors = dict(encoder.state_dict())
    head = linear_head(method)
    if head is not None:
        settings["num_classes"] = len(head[0])
        tensors.update({"head.weight": head[0], "head.bias": head[1]})
    norm = getattr(method, "fc_norm", None)
    if isinstance(norm, nn.LayerNorm):
        settings["global_pool"] = "avg"
        tensors.update({"fc_norm.weight": norm.weight, "fc_norm.bias": norm.bias})
    return contiguous(tensors), settings


def constructor(settings: dict[str, Any]) -> str:
    """The Python expression that builds the model."""
    arguments = ", ".join(f"{k}={v!r}" for k, v in settings.items() if k != "norm_eps")
    norm = f"norm_layer=partial(torch.nn.LayerNorm, eps={settings['norm_eps']!r})"
    return f"timm.models.VisionTransformer({arguments}, {norm})"


def require_vit(method: Method, where: str) -> ViT:
    """The method's encoder, if it is the one that other libraries know.

    Raises:
        UserError: another kind of encoder.
    """
    encoder = method.encoder
    if not isinstance(encoder, ViT):
        raise UserError(
            f"a {type(encoder).__name__} encoder has no counterpart in {where}: "
            f"use --format safetensors"
        )
    return encoder


def linear_head(method: Method) -> tuple[Tensor, Tensor] | None:
    """Weight (K, D) and bias (K,) of a classifier's head, ``None`` where there is none.

    A batch norm before it, with running mean m and variance v, is folded in:
    ``W (x - m) / s + b = (W / s) x + (b - (W / s) m)`` with ``s = sqrt(v + eps)``.
    """
    head = getattr(method, "head", None)
    if isinstance(head, nn.Linear):
        return head.weight, head.bias
    if not isinstance(head, nn.Sequential):
        return None
    norm, linear = head[0], head[1]
    assert isinstance(norm, nn.BatchNorm1d)
    assert isinstance(linear, nn.Linear)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    weight = linear.weight / torch.sqrt(norm.running_var + norm.eps)
    return weight, linear.bias - weight @ norm.running_mean
