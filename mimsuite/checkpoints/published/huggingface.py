"""Translate models of Hugging Face transformers to the names of the published code.

``ViTMAEForPreTraining``, ``ViTMAEModel``, ``ViTModel`` and ``ViTForImageClassification`` become
checkpoints like MAE's, ``VideoMAEForPreTraining``, ``VideoMAEModel`` and
``VideoMAEForVideoClassification`` like VideoMAE's, ``IJepaModel`` like an encoder without class
token, and ``VJEPA2Model`` like V-JEPA 2's: its one encoder is read as both of them. Sizes are
inferred from the tensors;
``config.json`` gives the rest and must agree with them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from mimsuite.checkpoints.shapes import count_blocks
from mimsuite.errors import UserError
from mimsuite.models.teachers.names import Rule, renamed, without_rule
from mimsuite.weights.files import WeightsFile, listed

# Names of a block's parts, in the hub's checkpoints and in version 5 of the library.
_PARTS: tuple[Rule, ...] = (
    (r"layernorm_before\.(\w+)", r"norm1.\2"),
    (r"layernorm_after\.(\w+)", r"norm2.\2"),
    (r"attention\.attention\.([qv])_bias", r"attn.\2_bias"),
    (r"attention\.attention\.([qkv])(?:uery|ey|alue)\.(\w+)", r"attn.\2.\3"),
    (r"attention\.([qkv])_proj\.(\w+)", r"attn.\2.\3"),
    (r"attention\.(?:output\.dense|o_proj)\.(\w+)", r"attn.proj.\2"),
    (r"(?:intermediate\.dense|mlp\.fc1)\.(\w+)", r"mlp.fc1.\2"),
    (r"(?:output\.dense|mlp\.fc2)\.(\w+)", r"mlp.fc2.\2"),
)


def _blocks(theirs: str, ours: str, parts: tuple[Rule, ...] = _PARTS) -> tuple[Rule, ...]:
    return tuple((rf"{theirs}\.(\d+)\.{part}", rf"{ours}.\1.{to}") for part, to in parts)


_DECODER_BLOCKS = r"decoder\.(?:decoder_encoder\.layer|decoder_layers|layers?)"


def _vit(name: str) -> tuple[Rule, ...]:
    """A plain encoder, below ``name.`` or at the top."""
    top = rf"(?:{name}\.)?"
    return (
        (rf"{top}embeddings\.cls_token", "cls_token"),
        (rf"{top}embeddings\.position_embeddings", "pos_embed"),
        (rf"{top}embeddings\.patch_embeddings\.projection\.(\w+)", r"patch_embed.proj.\1"),
        *_blocks(rf"{top}(?:encoder\.layer|layers)", "blocks"),
        (rf"{top}layernorm\.(\w+)", r"norm.\1"),
    )


_VIT: tuple[Rule, ...] = (
    *_vit("vit"),
    (r"decoder\.mask_token", "mask_token"),
    (r"decoder\.(decoder_pos_embed)", r"\1"),
    (r"decoder\.(decoder_(?:embed|norm|pred)\.\w+)", r"\1"),
    *_blocks(_DECODER_BLOCKS, "decoder_blocks"),
    (r"classifier\.(\w+)", r"head.\1"),
)
_VIDEO: tuple[Rule, ...] = (
    (r"(?:videomae\.)?embeddings\.patch_embeddings\.projection\.(\w+)", r"patch_embed.proj.\1"),
    *_blocks(r"(?:videomae\.)?encoder\.layer", "blocks"),
    (r"(?:videomae\.)?layernorm\.(\w+)", r"norm.\1"),
    (r"(mask_token|encoder_to_decoder\.weight)", r"\1"),
    (r"(decoder\.(?:norm|head)\.\w+)", r"\1"),
    *_blocks(_DECODER_BLOCKS, "decoder.blocks"),
    (r"(fc_norm\.\w+)", r"\1"),
    (r"classifier\.(\w+)", r"head.\1"),
)
_CLIP_PARTS: tuple[Rule, ...] = (
    (r"(norm[12]\.\w+)", r"\2"),
    (r"attention\.([qkv])(?:uery|ey|alue)\.(\w+)", r"attn.\2.\3"),
    (r"attention\.(proj\.\w+)", r"attn.\2"),
    (r"(mlp\.fc[12]\.\w+)", r"\2"),
)
_HUB = r"(?:vjepa2\.)?"
_VJEPA: tuple[Rule, ...] = (
    (
        rf"{_HUB}encoder\.embeddings\.patch_embeddings\.proj\.(\w+)",
        r"target_encoder.patch_embed.proj.\1",
    ),
    *_blocks(rf"{_HUB}encoder\.layer", "target_encoder.blocks", _CLIP_PARTS),
    (rf"{_HUB}encoder\.layernorm\.(\w+)", r"target_encoder.norm.\1"),
    (
        rf"{_HUB}predictor\.embeddings\.predictor_embeddings\.(\w+)",
        r"predictor.predictor_embed.\1",
    ),
    (rf"{_HUB}predictor\.embeddings\.mask_tokens", "predictor.mask_tokens"),
    *_blocks(rf"{_HUB}predictor\.layer", "predictor.predictor_blocks", _CLIP_PARTS),
    (rf"{_HUB}predictor\.layernorm\.(\w+)", r"predictor.predictor_norm.\1"),
    (rf"{_HUB}predictor\.proj\.(\w+)", r"predictor.predictor_proj.\1"),
)
_KERNEL = re.compile(r"(?:\w+\.)*embeddings\.patch_embeddings\.proj(?:ection)?\.weight")


@dataclass(frozen=True)
class _Model:
    """A ``model_type``: the names of its tensors and its default configuration."""

    rules: tuple[Rule, ...]
    decoder: str  # published name of the decoder's blocks
    defaults: dict[str, Any]
    encoder: str = ""  # before the published names of the encoder
    keys: Mapping[str, str] = field(default_factory=dict)  # its own name of a key -> the usual one


_COMMON: dict[str, Any] = {
    "num_attention_heads": 12,
    "layer_norm_eps": 1e-12,
    "image_size": 224,
    "hidden_act": "gelu",
}
_MODELS = {
    "vit": _Model(_VIT, "decoder_blocks.", _COMMON),
    "vit_mae": _Model(
        _VIT,
        "decoder_blocks.",
        {
            **_COMMON,
            "decoder_num_attention_heads": 16,
            "norm_pix_loss": False,
            "mask_ratio": 0.75,
        },
    ),
    "ijepa": _Model(_vit("ijepa"), "", _COMMON),
    "vjepa2": _Model(
        _VJEPA,
        "predictor.predictor_blocks.",
        {
            "num_attention_heads": 16,
            "decoder_num_attention_heads": 12,
            "layer_norm_eps": 1e-6,
            "image_size": 256,
            "hidden_act": "gelu",
            "num_frames": 64,
        },
        "target_encoder.",
        {
            "crop_size": "image_size",
            "frames_per_clip": "num_frames",
            "in_chans": "num_channels",
            "pred_hidden_size": "decoder_hidden_size",
            "pred_num_hidden_layers": "decoder_num_hidden_layers",
            "pred_num_attention_heads": "decoder_num_attention_heads",
        },
    ),
    "videomae": _Model(
        _VIDEO,
        "decoder.blocks.",
        {
            **_COMMON,
            "decoder_num_attention_heads": 6,
            "norm_pix_loss": True,
            "num_frames": 16,
            "use_mean_pooling": True,
        },
    ),
}
# Keys that change what a model computes -> the supported values.
_ONLY: dict[str, tuple[Any, ...]] = {
    "hidden_act": ("gelu",),
    "position_embedding_type": ("absolute",),
    "use_absolute_position_embeddings": (True,),
    **dict.fromkeys(
        (
            *("use_relative_position_bias", "use_shared_relative_position_bias"),
            *("layer_scale_init_value", "layerscale_value", "use_swiglu_ffn", "use_qk_norm"),
            *("num_register_tokens", "rope_theta", "rope_parameters", "window_size"),
            *("use_masked_positions", "mask_positions"),
        ),
        (None, False, 0, 0.0, [], {}),
    ),
}
# Configuration key -> name of the training setting in published checkpoints.
_FACTS = {
    "num_attention_heads": "num_heads",
    "decoder_num_attention_heads": "decoder_num_heads",
    "layer_norm_eps": "norm_eps",
    "image_size": "input_size",
    "mask_ratio": "mask_ratio",
    "norm_pix_loss": "norm_pix_loss",
    "num_frames": "num_frames",
    "sampling_rate": "sampling_rate",  # in exports of this suite
}
_DROPOUT = ("hidden_dropout_prob", "attention_probs_dropout_prob")
_READ = {
    *(*_FACTS, *_ONLY, "model_type", "architectures", "use_mean_pooling", "qkv_bias", "qv_bias"),
    *("hidden_size", "num_hidden_layers", "intermediate_size", "patch_size", "num_channels"),
    *("decoder_hidden_size", "decoder_num_hidden_layers", "decoder_intermediate_size"),
    *("mlp_ratio", "pred_mlp_ratio", "pred_num_mask_tokens"),  # the tensors show them
    *("tubelet_size", "id2label", "label2id", "head_dim", *_DROPOUT),
}
# Keys without effect here: they concern initialisation, loading, training or the output format.
_IDLE = re.compile(
    r"_.*|(torch_)?dtype|transformers_version|initializer_range|encoder_stride|pooler_\w+|"
    r"output_\w+|return_dict|use_return_dict|problem_type|chunk_size_feed_forward|use_cache|"
    r"num_labels|finetuning_task|torchscript|is_encoder_decoder|use_mask_token|use_bfloat16|"
    r"tie_word_embeddings|task_specific_params|attn_implementation"
)


def translate(file: WeightsFile) -> WeightsFile | None:
    """The file under the names of the published code; ``None`` if it is not from transformers.

    Raises:
        UserError: the model, or a key of its configuration, is not supported.
    """
    kernel = next((t for name, t in file.tensors.items() if _KERNEL.fullmatch(name)), None)
    if kernel is None:
        return None
    config = file.beside.config
    kind = str(config.get("model_type", _likely_kind(file.tensors, kernel)))
    if kind not in _MODELS:
        raise UserError(
            f"config.json: model_type {kind} is not supported, only {', '.join(_MODELS)}"
        )
    model = _MODELS[kind]
    config = {model.keys.get(key, key): value for key, value in config.items()}
    state = _with_biases(renamed(file.tensors, model.rules), kind)
    facts, notes = _facts(config, model, state, kind)
    if not config:
        eps = model.defaults["layer_norm_eps"]
        notes.append(f"no config.json beside it: norm_eps {eps} assumed, transformers' default")
    left = without_rule(file.tensors, model.rules)
    if left:
        notes.append(f"dropped: {listed(left, 20)}")
    if kind == "videomae" and "encoder_to_decoder.weight" in state:
        state = {_below_encoder(name): tensor for name, tensor in state.items()}
    if kind == "vjepa2":
        state = _as_released(state)
    return replace(file, tensors=state, facts={**file.facts, **facts}, notes=[*file.notes, *notes])


def _likely_kind(tensors: Mapping[str, Tensor], kernel: Tensor) -> str:
    """The ``model_type`` of a file without ``config.json``."""
    if any(name.endswith("predictor.embeddings.mask_tokens") for name in tensors):
        return "vjepa2"
    if kernel.ndim == 5:
        return "videomae"
    return "vit" if any(name.endswith("cls_token") for name in tensors) else "ijepa"


def _as_released(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """V-JEPA 2's file has a mask token per name, and two encoders, which begin equal here."""
    tokens = state.pop("predictor.mask_tokens", torch.empty(0))
    state |= {f"predictor.mask_tokens.{n}": token.clone() for n, token in enumerate(tokens)}
    student = {n.removeprefix("target_"): t for n, t in state.items() if n.startswith("target_")}
    return state | student


def _below_encoder(name: str) -> str:
    """Add the prefix ``encoder.``, as in VideoMAE's pretraining checkpoints."""
    own = ("patch_embed.", "blocks.", "norm.")
    return f"encoder.{name}" if name.startswith(own) else name


def _with_biases(state: dict[str, Tensor], kind: str) -> dict[str, Tensor]:
    """Add zero biases to a model without biases of queries, keys and values: it is equivalent."""
    names = ("attn.q_bias", "attn.v_bias") if kind == "videomae" else ("attn.qkv.bias",)
    if kind == "videomae":  # version 5 of the library stores them as biases of layers
        state = {re.sub(r"attn\.([qv])\.bias$", r"attn.\1_bias", n): t for n, t in state.items()}
    for name in [name for name in state if name.endswith("attn.qkv.weight")]:
        lead, size = name.removesuffix("attn.qkv.weight"), state[name].shape[1]
        for bias in names:
            length = 3 * size if bias == "attn.qkv.bias" else size
            state.setdefault(lead + bias, torch.zeros(length))
    return state


def _facts(
    config: Mapping[str, Any], model: _Model, state: Mapping[str, Tensor], kind: str
) -> tuple[dict[str, Any], list[str]]:
    """Facts from the configuration that the tensors do not show, and notes on ignored keys."""
    if not config:
        return {"norm_eps": model.defaults["layer_norm_eps"]}, []
    known = {**model.defaults, **config}
    for key, values in _ONLY.items():
        if key in known and known[key] not in values:
            raise UserError(f"config.json: {key}={known[key]!r} is not supported")
    _check_sizes(known, model, state)
    pooled = known.get("use_mean_pooling", True)
    if kind == "videomae" and "head.weight" in state and not pooled:
        raise UserError(
            "config.json: use_mean_pooling=False is not supported for a classifier, whose head "
            "reads the mean of the tokens here"
        )
    facts = {name: known[key] for key, name in _FACTS.items() if key in known}
    facts["norm_eps"] = float(facts["norm_eps"])
    if "norm_pix_loss" in facts:
        facts["normlize_target"] = facts["norm_pix_loss"]
    if not 0 < facts.get("mask_ratio", 0.75) < 1:  # set for a forward pass of all patches
        facts.pop("mask_ratio")
    notes = [
        f"config.json: {key}={known[key]} is not used"
        for key in known
        if (key in _DROPOUT and known[key])
        or (key == "mask_ratio" and key not in facts)
        or (key not in _READ and known[key] and not _IDLE.fullmatch(key))
    ]
    labels = known.get("id2label")
    if isinstance(labels, dict) and not all(str(v).startswith("LABEL_") for v in labels.values()):
        notes.append("config.json: the names of the classes (id2label) are not used")
    return facts, notes


def _check_sizes(config: Mapping[str, Any], model: _Model, state: Mapping[str, Tensor]) -> None:
    """Check that the tensors fit the configuration, as the library does."""
    kernel = state[f"{model.encoder}patch_embed.proj.weight"]
    width = kernel.shape[0]
    found = {
        "hidden_size": width,
        "num_channels": kernel.shape[1],
        "patch_size": kernel.shape[-1],
        "num_hidden_layers": count_blocks(state, f"{model.encoder}blocks."),
        "head_dim": width // max(int(config["num_attention_heads"]), 1),
    }
    if kernel.ndim == 5:
        found["tubelet_size"] = kernel.shape[2]
    if model.decoder and (blocks := count_blocks(state, model.decoder)):
        found["decoder_num_hidden_layers"] = blocks
    for key, value in found.items():
        given = config.get(key, value)
        given = given[0] if isinstance(given, list) and len(set(given)) == 1 else given
        if given != value:
            raise UserError(f"config.json: {key}={given}, the tensors make it {value}")
    positions, size = state.get("pos_embed"), config["image_size"]
    height, across = size if isinstance(size, list) else (size, size)
    count = (height // kernel.shape[-2]) * (across // kernel.shape[-1])
    classes = int("cls_token" in state)
    if positions is not None and positions.shape[1] != classes + count:
        raise UserError(
            f"config.json: image_size={size} makes {count} patches, position_embeddings holds "
            f"{positions.shape[1] - classes}"
        )
