"""The checkpoints of facebookresearch/ijepa, and plain vision transformers without a class token.

A released file holds the trained encoder, the predictor and the target encoder. A file with one
encoder alone, as in timm, is read as the target encoder, which probes use.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor

from mimsuite.checkpoints.published.layout import Published, model_keys, published
from mimsuite.checkpoints.shapes import (
    Hints,
    count_blocks,
    heads_of,
    infer_encoder,
    mlp_ratio,
    of_rank,
)
from mimsuite.config.keys.masks import MultiBlockMaskSection
from mimsuite.config.keys.section import height_width
from mimsuite.methods.ijepa import IJEPA
from mimsuite.weights.files import WeightsFile, listed

_TARGET, _PREDICTOR = "target_encoder.", "predictor."
_MARKS = ("pos_embed", "patch_embed.proj.weight", "blocks.0.attn.qkv.weight")
_ENCODERS = ("encoder.", _TARGET)
_NETWORKS = ("encoder.", _PREDICTOR, _TARGET)
_LICENCE = "the released I-JEPA weights are CC-BY-NC-4.0: not for commercial use"


def understand(file: WeightsFile, hints: Hints) -> Published | None:
    """The checkpoint in our terms; ``None`` if it is of another family.

    Raises:
        UserError: a size that cannot be inferred.
    """
    names = file.tensors.keys()
    if all(mark in names for mark in _MARKS) and "cls_token" not in names:
        return _encoder_alone(file, hints)
    if not all(_TARGET + mark in names for mark in _MARKS):
        return None
    if f"{_PREDICTOR}predictor_embed.weight" not in names:
        return None
    left = [name for name in names if not name.startswith(_NETWORKS)]
    kept = {name: tensor for name, tensor in file.tensors.items() if name not in left}
    target = {k.removeprefix(_TARGET): t for k, t in kept.items() if k.startswith(_TARGET)}
    encoder = infer_encoder(target, hints)
    predictor, assumed = _predictor(kept, hints, encoder.keys["encoder.heads"])
    notes = [*encoder.assumed, *assumed, _LICENCE]
    if left:
        notes.insert(0, f"dropped: {listed(left, 20)}")
    keys = {**model_keys(encoder), **predictor, **_mask_keys(encoder.keys)}
    file = replace(file, tensors=kept)
    layout = "I-JEPA encoder, predictor and target encoder"
    found = published(file, IJEPA, layout, _recipe(encoder.keys), keys, notes)
    return replace(found, has_decoder=True)


def _encoder_alone(file: WeightsFile, hints: Hints) -> Published | None:
    """``None`` for a classifier, which is not supported."""
    if any(name.startswith(("head.", "fc_norm.")) for name in file.tensors):
        return None
    encoder = infer_encoder(file.tensors, hints)
    notes = [*encoder.assumed, f"of facebookresearch/ijepa? {_LICENCE}"]
    # Both encoders are initialised from it, so training can continue.
    below = {lead + name: t for lead in _ENCODERS for name, t in file.tensors.items()}
    layout = "ViT encoder without class token"
    file = replace(file, tensors=below)
    keys = {**model_keys(encoder), **_mask_keys(encoder.keys)}
    found = published(file, IJEPA, layout, _recipe(encoder.keys), keys, notes)
    return replace(found, has_decoder=False)


def _predictor(
    tensors: Mapping[str, Tensor], hints: Hints, encoder_heads: int
) -> tuple[dict[str, Any], list[str]]:
    """Keys of the predictor; published ones have as many heads as the encoder."""
    width = of_rank(tensors, f"{_PREDICTOR}predictor_embed.weight", 2).shape[0]
    block = f"{_PREDICTOR}predictor_blocks."
    hidden = of_rank(tensors, f"{block}0.mlp.fc1.weight", 2).shape[0]
    released = {width: encoder_heads}
    heads, assumed = heads_of("decoder", width, hints, released)
    keys = {
        "width": width,
        "depth": count_blocks(tensors, block),
        "heads": heads,
        "mlp_ratio": mlp_ratio(hidden, width),
    }
    return {f"model.predictor.{key}": value for key, value in keys.items()}, assumed


def _mask_keys(keys: Mapping[str, Any]) -> dict[str, Any]:
    """Changes to the published mask keys, which the file does not hold, for a small grid."""
    rows, columns = (
        side // keys["encoder.patch_size"] for side in height_width(keys["encoder.image_size"])
    )
    kept = (n for n in range(11) if MultiBlockMaskSection(min_keep=n).fits((rows, columns)))
    return {"mask.min_keep": max(kept, default=0)}


def _recipe(keys: Mapping[str, Any]) -> str:
    """The recipe of the nearest released size."""
    if keys["encoder.width"] >= 1408:
        return "image/ijepa-vitg16-in22k"
    return f"image/ijepa-vith{'14' if keys['encoder.patch_size'] < 16 else '16-448'}-in1k"
