"""The Hugging Face transformers form of a model: class, config and tensor names.

Tensor names are those of the checkpoints on the hub, which transformers 4 and 5 read.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from mimsuite.checkpoints.opened import Opened
from mimsuite.config.keys.section import height_width
from mimsuite.export.to_timm import linear_head
from mimsuite.methods.classify import Classifier
from mimsuite.methods.mae import MAE
from mimsuite.methods.video_mae import VideoMAE
from mimsuite.methods.vjepa import VJEPA
from mimsuite.models import BEiT, ClipViT, MAEDecoder, VideoViT, ViT

# Our name within a block -> transformers' name. The fused qkv is split beforehand.
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
_BEIT_BLOCK = {
    **_BLOCK,
    "attn.q_bias": "attention.attention.query.bias",
    "attn.v_bias": "attention.attention.value.bias",
    "attn.relative_position_bias_table": (
        "attention.attention.relative_position_bias.relative_position_bias_table"
    ),
    "gamma_1": "lambda_1",
    "gamma_2": "lambda_2",
}
_VIDEO_BLOCK = {
    **_BLOCK,
    "attn.q_bias": "attention.attention.q_bias",
    "attn.v_bias": "attention.attention.v_bias",
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
_VIDEO_DECODER = {
    "embed": "encoder_to_decoder",
    "mask_token": "mask_token",
    "norm": "decoder.norm",
    "head": "decoder.head",
}
_CLIP_BLOCK = {
    "norm1": "norm1",
    "attn.query": "attention.query",
    "attn.key": "attention.key",
    "attn.value": "attention.value",
    "attn.proj": "attention.proj",
    "norm2": "norm2",
    "mlp.fc1": "mlp.fc1",
    "mlp.fc2": "mlp.fc2",
}
_THEIR_TOKEN = 1  # number of the mask token that transformers predicts with
_CLIP_ENCODER = {"patch_embed.proj": "embeddings.patch_embeddings.proj", "norm": "layernorm"}
_CLIP_PREDICTOR = {
    "embed": "embeddings.predictor_embeddings",
    "norm": "layernorm",
    "proj": "proj",
}


@dataclass
class Form:
    """A model in transformers.

    Attributes:
        name: name of the class.
        config: content of ``config.json``.
        tensors: name -> tensor.
        options: further arguments of ``from_pretrained``.
        notes: lines to print.
    """

    name: str
    config: dict[str, Any]
    tensors: dict[str, Tensor]
    options: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def refuse_huggingface(opened: Opened) -> str | None:
    """Reason why transformers cannot hold a model; ``None`` where it can."""
    method, encoder = opened.method, opened.method.encoder
    section = encoder.section
    if type(encoder) is VideoViT:  # a kind of it on cubes is no VideoMAE
        if section.layer_scale or section.cosine_attention:
            return "transformers' VideoMAE has neither layer scale nor cosine attention"
        if section.trained_size not in (None, section.size):
            return "transformers' VideoMAE does not resize positions of model.encoder.trained_size"
        return None
    if isinstance(encoder, ClipViT):
        return _refuse_vjepa(opened, encoder)
    if not isinstance(encoder, ViT):
        return f"transformers has no {type(encoder).__name__} encoder"
    rows, columns = height_width(section.image_size)
    if section.class_tokens > 1:
        return "transformers' ViT has one class token"
    if not section.final_norm:
        return "transformers' ViT has a last norm, and this encoder has none"
    if isinstance(encoder, BEiT):
        return None if rows == columns else "transformers' BEiT holds square images only"
    if isinstance(method, Classifier) and method.pool == "mean":
        return "transformers' ViT cannot norm the mean of the tokens as this classifier does"
    return None


def _refuse_vjepa(opened: Opened, encoder: ClipViT) -> str | None:
    section = encoder.section
    rows, columns = height_width(section.image_size)
    if section.positions != "rotary":
        return "transformers' VJEPA2 has rotary positions, this encoder a table of them"
    if section.still or rows != columns:
        return "transformers' VJEPA2 takes square clips only"
    if not isinstance(opened.method, VJEPA) or not opened.has_decoder:
        return "transformers' VJEPA2 has a predictor, and this model has none"
    return None


def form_of(opened: Opened) -> Form:
    """The form of a model that :func:`refuse_huggingface` accepts."""
    encoder = opened.method.encoder
    if isinstance(encoder, VideoViT):
        form = _video(opened)
    elif isinstance(encoder, ClipViT):
        form = _vjepa(opened)
    else:
        form = _beit(opened) if isinstance(encoder, BEiT) else _vit(opened)
    if isinstance(opened.method, Classifier) and linear_head(opened.method) is None:
        form.notes.append("transformers has no attentive pooling: this is the encoder alone")
    form.config["architectures"] = [form.name]
    return form


def _vit(opened: Opened) -> Form:
    """``ViTMAEForPreTraining``, for square images; ``ViTForImageClassification``; ``ViTModel``;
    without class token ``IJepaModel``."""
    recipe, state = opened.resolved.recipe, opened.method.state_dict()
    config = {"model_type": "vit", **_image_config(opened)}
    rows, columns = height_width(opened.method.encoder.section.image_size)
    method = opened.method
    rebuilds = opened.has_decoder and isinstance(method, MAE)
    fused = bool(getattr(method, "fusion", ()))  # the decoder reads several blocks
    crossed = not isinstance(getattr(method, "decoder", None), MAEDecoder)
    if rebuilds and rows == columns and not fused and not crossed:
        decoder = _renamed(_below(state, "decoder."), _DECODER, "decoder_layers", _BLOCK)
        tensors = _encoder(state, _BLOCK, "vit.")
        tensors |= _under("decoder.", decoder)
        config |= _decoder_config(opened, ratio=recipe.mask.ratio) | {"model_type": "vit_mae"}
        return Form("ViTMAEForPreTraining", config, tensors)
    form = _classifier(opened, "ViTForImageClassification", config, _BLOCK, "vit.")
    if form is None:
        tensors = _encoder(state, _BLOCK)
        name = "ViTModel" if method.encoder.class_tokens else "IJepaModel"
        config |= {"model_type": "vit" if method.encoder.class_tokens else "ijepa"}
        form = Form(name, config, tensors, {"add_pooling_layer": False})
    if rebuilds:
        why = "reads one block only" if fused or crossed else "holds square images only"
        form.notes.append(f"ViTMAE {why}: this is the encoder without the decoder")
    return form


def _beit(opened: Opened) -> Form:
    """``BeitForImageClassification`` or ``BeitModel``."""
    section = opened.method.encoder.section
    config = {
        "model_type": "beit",
        **_image_config(opened),
        "use_absolute_position_embeddings": True,
        "use_relative_position_bias": section.relative_positions,
        "layer_scale_init_value": section.layer_scale,
        "use_mean_pooling": hasattr(opened.method, "fc_norm"),
        "use_mask_token": False,
        "drop_path_rate": 0.0,
    }
    form = _classifier(opened, "BeitForImageClassification", config, _BEIT_BLOCK, "beit.")
    if form is None:
        tensors = _encoder(opened.method.state_dict(), _BEIT_BLOCK)
        return Form("BeitModel", config, tensors, {"add_pooling_layer": False})
    norm = _below(opened.method.state_dict(), "fc_norm.")
    form.tensors |= _under("beit.pooler.layernorm.", norm)
    return form


def _video(opened: Opened) -> Form:
    """``VideoMAEForPreTraining``, ``VideoMAEForVideoClassification`` or ``VideoMAEModel``."""
    state, section = opened.method.state_dict(), opened.method.encoder.section
    norm = _below(state, "fc_norm.")
    config = {
        "model_type": "videomae",
        **_image_config(opened),
        "num_frames": section.frames,
        "tubelet_size": section.tubelet,
        "use_mean_pooling": bool(norm),
    }
    if opened.has_decoder and isinstance(opened.method, VideoMAE):
        tensors = _encoder(state, _VIDEO_BLOCK, "videomae.")
        part = _below(state, "decoder.")
        tensors |= _renamed(part, _VIDEO_DECODER, "decoder.decoder_layers", _VIDEO_BLOCK)
        config |= _decoder_config(opened)
        return Form("VideoMAEForPreTraining", config, tensors)
    name = "VideoMAEForVideoClassification"
    form = _classifier(opened, name, config, _VIDEO_BLOCK, "videomae.")
    if form is None:
        return Form("VideoMAEModel", config, _encoder(state, _VIDEO_BLOCK))
    form.tensors |= _under("fc_norm.", norm)
    return form


def _vjepa(opened: Opened) -> Form:
    """``VJEPA2Model``: the target encoder, which probes read, and the predictor."""
    state, recipe = opened.method.state_dict(), opened.resolved.recipe
    section, predictor = recipe.model.encoder, recipe.model.predictor
    size, _ = height_width(section.image_size)
    config = {
        "model_type": "vjepa2",
        "patch_size": section.patch_size,
        "crop_size": size,
        "frames_per_clip": section.frames,
        "tubelet_size": section.tubelet,
        "in_chans": section.in_channels,
        "hidden_size": section.width,
        "num_hidden_layers": section.depth,
        "num_attention_heads": section.heads,
        "mlp_ratio": section.mlp_ratio,
        "layer_norm_eps": section.norm_eps,
        "qkv_bias": True,
        "hidden_act": "gelu",
        "pred_hidden_size": predictor.width,
        "pred_num_hidden_layers": predictor.depth,
        "pred_num_attention_heads": predictor.heads,
        "pred_mlp_ratio": predictor.mlp_ratio,
        "pred_num_mask_tokens": predictor.mask_tokens,
    }
    below = _below(state, "predictor.")
    tokens = [below.pop(f"mask_tokens.{number}") for number in range(predictor.mask_tokens)]
    notes = []
    if len(tokens) > _THEIR_TOKEN:  # clips of one length train the first token alone
        tokens[_THEIR_TOKEN] = tokens[0]
        notes.append(
            "transformers predicts with mask token 1: the trained token 0 stands there too"
        )
    encoder = _renamed(_below(state, "encoder."), _CLIP_ENCODER, "layer", _CLIP_BLOCK)
    tensors = {
        **_under("encoder.", encoder),
        **_under("predictor.", _renamed(below, _CLIP_PREDICTOR, "layer", _CLIP_BLOCK)),
        "predictor.embeddings.mask_tokens": torch.stack(tokens),  # (count, 1, 1, width)
    }
    return Form("VJEPA2Model", config, tensors, notes=notes)


def _classifier(
    opened: Opened, name: str, config: dict[str, Any], block: Mapping[str, str], prefix: str
) -> Form | None:
    """The encoder with a linear head; ``None`` for a model without one."""
    head = linear_head(opened.method)
    if head is None:
        return None
    tensors = _encoder(opened.method.state_dict(), block, prefix)
    tensors |= {"classifier.weight": head[0], "classifier.bias": head[1]}
    classes = {str(i): f"LABEL_{i}" for i in range(len(head[0]))}
    labels = {"id2label": classes, "label2id": {v: int(k) for k, v in classes.items()}}
    return Form(name, config | labels, tensors)


def _encoder(
    state: Mapping[str, Tensor], block: Mapping[str, str], prefix: str = ""
) -> dict[str, Tensor]:
    return _under(prefix, _renamed(_below(state, "encoder."), _ENCODER, "encoder.layer", block))


def _below(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {n.removeprefix(prefix): t for n, t in state.items() if n.startswith(prefix)}


def _under(prefix: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {prefix + name: tensor for name, tensor in state.items()}


def _renamed(
    state: Mapping[str, Tensor], names: Mapping[str, str], blocks: str, block: Mapping[str, str]
) -> dict[str, Tensor]:
    """One transformer under the hub's names; ``blocks`` is the hub's name of its list of blocks."""
    renamed: dict[str, Tensor] = {}
    for name, tensor in _split_qkv(state).items():
        match = re.fullmatch(r"blocks\.(\d+)\.(.+)", name)
        if name.endswith(".relative_position_index"):
            continue  # transformers computes its own
        if match:
            renamed[f"{blocks}.{match[1]}.{_new_name(match[2], block)}"] = tensor
        else:
            renamed[_new_name(name, names)] = tensor
    return renamed


def _new_name(name: str, names: Mapping[str, str]) -> str:
    """The new name by ``names``, either of the whole name or of all but its last part."""
    if name in names:
        return names[name]
    stem, _, kind = name.rpartition(".")
    return f"{names[stem]}.{kind}"


def _split_qkv(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    split: dict[str, Tensor] = {}
    for name, tensor in state.items():
        if ".attn.qkv." not in name:
            split[name] = tensor
            continue
        for part, rows in zip(("query", "key", "value"), tensor.chunk(3), strict=True):
            split[name.replace(".qkv.", f".{part}.")] = rows
    return split


def _image_config(opened: Opened) -> dict[str, Any]:
    section = opened.method.encoder.section
    height, width = height_width(section.image_size)
    return {
        "image_size": height if height == width else [height, width],
        "patch_size": section.patch_size,
        "num_channels": section.in_channels,
        "hidden_size": section.width,
        "num_hidden_layers": section.depth,
        "num_attention_heads": section.heads,
        "intermediate_size": int(section.width * section.mlp_ratio),
        "hidden_act": "gelu",
        "layer_norm_eps": section.norm_eps,
        "qkv_bias": True,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        "initializer_range": 0.02,
    }


def _decoder_config(opened: Opened, ratio: float | None = None) -> dict[str, Any]:
    recipe = opened.resolved.recipe
    section = recipe.model.decoder
    return {
        "decoder_hidden_size": section.width,
        "decoder_num_hidden_layers": section.depth,
        "decoder_num_attention_heads": section.heads,
        "decoder_intermediate_size": int(section.width * section.mlp_ratio),
        "norm_pix_loss": recipe.target.normalize,
        **({} if ratio is None else {"mask_ratio": ratio}),
    }
