"""Detectron2's ViTDet: a plain ViT as the backbone of a detector (Li et al., arXiv:2203.16527).

Names are those of Detectron2's ``ViT`` under ``backbone.net.``. Its ViT has no class token and no
last norm, so these are left out; relative positions and the pyramid belong to the detector.
"""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from mimsuite.checkpoints.opened import Opened
from mimsuite.methods import Method
from mimsuite.models import ViT
from mimsuite.weights.native import contiguous

PREFIX = "backbone.net."
_LEFT_OUT = ("cls_token", "norm.")


def refuse_vitdet(opened: Opened) -> str | None:
    """Reason why Detectron2's ViTDet cannot hold a model; ``None`` where it can."""
    encoder = opened.method.encoder
    if type(encoder) is ViT:
        return None
    return f"Detectron2's ViTDet has no {type(encoder).__name__} encoder"


def write_vitdet(opened: Opened, out: Path) -> list[str]:
    """Write the encoder for Detectron2: ``{"model": ...}`` as ``.pth``, or safetensors."""
    tensors = vitdet_state(opened.method)
    if out.suffix == ".safetensors":
        save_file(tensors, out, metadata={"format": "pt"})
    else:
        torch.save({"model": tensors}, out)
    section = opened.method.encoder.section
    size = section.image_size
    return [
        "train.init_checkpoint = PATH",
        f"model.backbone.net: pretrain_img_size={size}, "
        f"pretrain_use_cls_token={bool(section.class_tokens)}, "
        f"patch_size={section.patch_size}, embed_dim={section.width}, depth={section.depth}, "
        f"num_heads={section.heads}, mlp_ratio={section.mlp_ratio}, qkv_bias=True",
    ]


def vitdet_state(method: Method) -> dict[str, Tensor]:
    """Detectron2's name with the prefix ``backbone.net.`` -> tensor.

    With class tokens, ``pos_embed`` keeps one leading row for them, (1, 1 + N, D): the backbone
    drops it (``pretrain_use_cls_token``) and resizes the rest from ``pretrain_img_size``. Without
    class tokens it is (1, N, D).
    """
    state = method.encoder.state_dict()
    kept = {name: t for name, t in state.items() if not name.startswith(_LEFT_OUT)}
    kept["pos_embed"] = kept["pos_embed"][:, max(0, method.encoder.section.class_tokens - 1) :]
    return contiguous({PREFIX + name: tensor for name, tensor in kept.items()})
