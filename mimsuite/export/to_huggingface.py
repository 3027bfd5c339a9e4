"""Hugging Face transformers: a folder that ``from_pretrained`` opens without a network.

* an autoencoder becomes ``ViTMAEForPreTraining`` (its encoder opens as ``ViTMAEModel`` too);
* an encoder alone, or one of rectangular images, which ViTMAE cannot hold, becomes ``ViTModel``;
* a classifier on the class token becomes ``ViTForImageClassification``.

Names are those of the checkpoints on the hub, which every transformers 4 and 5 reads.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from mimsuite.config.section import height_width
from mimsuite.config.sections import Recipe
from mimsuite.errors import UserError
from mimsuite.export.native import contiguous
from mimsuite.export.opened import Opened
from mimsuite.export.to_timm import linear_head, require_vit
from mimsuite.methods.mae import MAE

FILES = ("config.json", "model.safetensors", "preprocessor_config.json")

_BICUBIC = 3  # PIL's number

# Our name below a block -> theirs. The fused qkv is cut in three beforehand.
_BLOCK = {
    "norm1": "layernorm_before",
    "attn.query": "attention.attention.query",
    "attn.key": "attention.attention.key",
    "attn.value": "attention.attention.value",
    "attn.proj": "attention.output.dense",
    "norm2": "layernorm_after",
    "mlp.fc1": "intermediate.dense",
    "mlp.fc2": "output.dense",
}
_ENCODER = {
    "cls_token": "embeddings.cls_token",
    "pos_embed": "embeddings.position_embeddings",
    "patch_embed.proj": "embeddings.patch_embeddings.projection",
    "norm": "layernorm",
}
_DECODER = {
    "embed": "decoder_embed",
    "mask_token": "mask_token",
    "pos_embed": "decoder_pos_embed",
    "norm": "decoder_norm",
    "pred": "decoder_pred",
}


def write_huggingface(opened: Opened, out: Path) -> list[str]:
    """Write ``config.json``, ``model.safetensors`` and ``preprocessor_config.json`` into ``out``.

    Raises:
        UserError: a model that transformers has no class for.
    """
    encoder = require_vit(opened.method, "Hugging Face transformers")
    recipe, state = opened.resolved.recipe, opened.method.state_dict()
    config = _encoder_config(recipe, encoder.section.norm_eps)
    rows, columns = height_width(encoder.section.image_size)
    rebuilds = opened.has_decoder and isinstance(opened.method, MAE)
    if rebuilds and rows == columns:
        name, tensors = "ViTMAEForPreTraining", _autoencoder(state)
        config.update(_decoder_config(recipe), model_type="vit_mae")
    elif "fc_norm.weight" in state:
        raise UserError(
            "Hugging Face ViT cannot norm the mean of the tokens as this classifier does: "
            "use --format timm"
        )
    elif (head := linear_head(opened.method)) is not None:
        name, tensors = "ViTForImageClassification", _encoder(state, "vit.")
        tensors.update({"classifier.weight": head[0], "classifier.bias": head[1]})
        classes = {str(i): f"LABEL_{i}" for i in range(len(head[0]))}
        config.update(id2label=classes, label2id={v: int(k) for k, v in classes.items()})
    else:
        name, tensors = "ViTModel", _encoder(state)
    config["architectures"] = [name]
    _write_json(out / "config.json", config)
    _write_json(out / "preprocessor_config.json", _preprocessor(recipe, rows, columns))
    save_file(contiguous(tensors), out / "model.safetensors", metadata={"format": "pt"})
    pooling = ", add_pooling_layer=False" if name == "ViTModel" else ""
    lines = [
        f"from transformers import {name}",
        f"model = {name}.from_pretrained(PATH{pooling})",
    ]
    if rebuilds and name == "ViTModel":
        lines.append("# ViTMAE holds square images only: this is the encoder without the decoder")
    return lines


def _encoder(state: dict[str, Tensor], prefix: str = "") -> dict[str, Tensor]:
    part = {n.removeprefix("encoder."): t for n, t in state.items() if n.startswith("encoder.")}
    return {prefix + n: t for n, t in _renamed(part, _ENCODER, "encoder.layer").items()}


def _autoencoder(state: dict[str, Tensor]) -> dict[str, Tensor]:
    part = {n.removeprefix("decoder."): t for n, t in state.items() if n.startswith("decoder.")}
    decoder = _renamed(part, _DECODER, "decoder_layers")
    return {**_encoder(state, "vit."), **{f"decoder.{n}": t for n, t in decoder.items()}}


def _renamed(state: dict[str, Tensor], names: dict[str, str], blocks: str) -> dict[str, Tensor]:
    """One transformer under the hub's names; ``blocks`` is what they call its list of blocks."""
    renamed: dict[str, Tensor] = {}
    for name, tensor in _split_qkv(state).items():
        block = re.fullmatch(r"blocks\.(\d+)\.(.+)\.(weight|bias)", name)
        if block:
            renamed[f"{blocks}.{block[1]}.{_BLOCK[block[2]]}.{block[3]}"] = tensor
            continue
        stem, dot, kind = name.rpartition(".")
        if name in names:
            renamed[names[name]] = tensor
        else:
            renamed[names[stem] + dot + kind] = tensor
    return renamed


def _split_qkv(state: dict[str, Tensor]) -> dict[str, Tensor]:
    split: dict[str, Tensor] = {}
    for name, tensor in state.items():
        if ".attn.qkv." not in name:
            split[name] = tensor
            continue
        for part, rows in zip(("query", "key", "value"), tensor.chunk(3), strict=True):
            split[name.replace(".qkv.", f".{part}.")] = rows
    return split


def _encoder_config(recipe: Recipe, norm_eps: float) -> dict[str, Any]:
    section = recipe.model.encoder
    height, width = height_width(section.image_size)
    return {
        "model_type": "vit",
        "image_size": height if height == width else [height, width],
        "patch_size": section.patch_size,
        "num_channels": section.in_channels,
        "hidden_size": section.width,
        "num_hidden_layers": section.depth,
        "num_attention_heads": section.heads,
        "intermediate_size": int(section.width * section.mlp_ratio),
        "hidden_act": "gelu",
        "layer_norm_eps": norm_eps,
        "qkv_bias": True,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        "initializer_range": 0.02,
    }


def _decoder_config(recipe: Recipe) -> dict[str, Any]:
    section = recipe.model.decoder
    return {
        "decoder_hidden_size": section.width,
        "decoder_num_hidden_layers": section.depth,
        "decoder_num_attention_heads": section.heads,
        "decoder_intermediate_size": int(section.width * section.mlp_ratio),
        "mask_ratio": recipe.mask.ratio,
        "norm_pix_loss": recipe.target.normalize,
    }


def _preprocessor(recipe: Recipe, height: int, width: int) -> dict[str, Any]:
    return {
        "image_processor_type": "ViTImageProcessor",
        "do_resize": True,
        "size": {"height": height, "width": width},
        "resample": _BICUBIC,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(recipe.augment.mean),
        "image_std": list(recipe.augment.std),
    }


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
