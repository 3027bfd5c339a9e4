"""timm: a state dict that timm's ``VisionTransformer`` or ``Beit`` loads strictly.

The encoder's names are timm's own. What has to be right besides is how the model is built:
LayerNorm eps 1e-6, the kind of pooling, BEiT's options. The line that builds it is printed, and
kept in the header. The file is loaded and compared before it gets its name.
"""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from mimsuite.checkpoints.opened import Opened
from mimsuite.export.check import Outputs, agree
from mimsuite.methods import Method
from mimsuite.methods.classify import Classifier
from mimsuite.models import BEiT, PostNormViT, ViT
from mimsuite.weights.native import contiguous


def refuse_timm(opened: Opened) -> str | None:
    """Why timm cannot hold a model; ``None``: it can."""
    if getattr(opened.method.encoder, "class_tokens", 1) > 1:
        return "timm's VisionTransformer has one class token"
    return no_vit(opened, "timm")


def write_timm(opened: Opened, out: Path) -> list[str]:
    """Write the encoder, and a classifier's head, for timm.

    Raises:
        MimsuiteError: timm computes other tokens.
    """
    tensors, settings = timm_state(opened.method)
    line = constructor(settings)
    metadata = {"format": "pt", "timm": json.dumps(settings), "constructor": line}
    save_file(tensors, out, metadata=metadata)
    lines = [
        "import timm, torch; from functools import partial",
        "from safetensors.torch import load_file",
        f"model = {line}",
        "model.load_state_dict(load_file(PATH), strict=True)",
    ]
    if isinstance(opened.method, Classifier) and not settings["num_classes"]:
        lines.append("# timm has no head that pools by attention: this is the encoder alone")
    return [*lines, _check(opened.method, settings, out)]


def timm_state(method: Method) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors under timm's names, and the class and arguments of the model they are for."""
    encoder = method.encoder
    assert isinstance(encoder, ViT)
    section = encoder.section
    settings: dict[str, Any] = {
        "class": "VisionTransformer",
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
    tensors = {
        name: tensor
        for name, tensor in encoder.state_dict().items()
        if not name.endswith(".relative_position_index")  # timm makes its own
    }
    if not encoder.class_tokens:
        settings |= {"class_token": False, "global_pool": "avg", "fc_norm": False}
    if isinstance(encoder, BEiT):
        settings["class"] = "Beit"
        settings["init_values"] = section.layer_scale or None
        settings["use_rel_pos_bias"] = section.relative_positions
    if not section.final_norm:
        settings["final_norm"] = False
    head = linear_head(method)
    if head is not None:
        settings["num_classes"] = len(head[0])
        tensors.update({"head.weight": head[0], "head.bias": head[1]})
    norm = getattr(method, "fc_norm", None)
    if isinstance(norm, nn.LayerNorm):
        settings["global_pool"] = "avg"
        settings.pop("fc_norm", None)  # True by this pooling
        tensors.update({"fc_norm.weight": norm.weight, "fc_norm.bias": norm.bias})
    return contiguous(tensors), settings


def constructor(settings: dict[str, Any]) -> str:
    """The Python expression that builds the model."""
    arguments = ", ".join(
        f"{k}={v!r}" for k, v in settings.items() if k not in ("class", "norm_eps")
    )
    norm = f"norm_layer=partial(torch.nn.LayerNorm, eps={settings['norm_eps']!r})"
    return f"timm.models.{settings['class']}({arguments}, {norm})"


def _check(method: Method, settings: dict[str, Any], path: Path) -> str:
    import timm

    outputs, arguments = Outputs(method), dict(settings)
    build = getattr(timm.models, arguments.pop("class"))
    norm = partial(nn.LayerNorm, eps=arguments.pop("norm_eps"))
    with torch.random.fork_rng(devices=[]):
        model = build(**arguments, norm_layer=norm).eval()
    model.load_state_dict(load_file(path), strict=True)
    images = outputs.example()
    with torch.no_grad():
        pairs = [(model.forward_features(images), outputs.tokens(images))]
        if settings["num_classes"]:
            pairs.append((model(images), outputs.logits(images)))
    return agree("timm", *pairs)


def no_vit(opened: Opened, where: str) -> str | None:
    """Why ``where`` has no such encoder, if it is no vision transformer."""
    if isinstance(opened.method.encoder, ViT) and not isinstance(
        opened.method.encoder, PostNormViT
    ):
        return None
    return f"{where} has no {type(opened.method.encoder).__name__} encoder"


def linear_head(method: Method) -> tuple[Tensor, Tensor] | None:
    """Weight (K, D) and bias (K,) of a classifier's head on the class token or the mean token,
    ``None`` where there is none.

    A batch norm before it, with running mean m and variance v, is folded in:
    ``W (x - m) / s + b = (W / s) x + (b - (W / s) m)`` with ``s = sqrt(v + eps)``; so is the unit
    of numbers that the head predicts.
    """
    if not isinstance(method, Classifier) or method.pool == "attentive":
        return None
    head = method.head
    if isinstance(head, nn.Linear):
        return method.learnt.in_units(head.weight, head.bias)
    assert isinstance(head, nn.Sequential)
    norm, linear = head[0], head[1]
    assert isinstance(norm, nn.BatchNorm1d)
    assert isinstance(linear, nn.Linear)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    weight = linear.weight / torch.sqrt(norm.running_var + norm.eps)
    return method.learnt.in_units(weight, linear.bias - weight @ norm.running_mean)
