"""The checkpoints of facebookresearch/vjepa2 and facebookresearch/jepa.

A released file holds the trained encoder, the predictor and the target encoder, which probes read.
V-JEPA 2 does not use fixed positions, but its files still hold their tables.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor

from mimsuite.checkpoints.published.layout import Published, published
from mimsuite.checkpoints.shapes import Hints, count_blocks, heads_of, mlp_ratio, norm_eps, of_rank
from mimsuite.errors import UserError
from mimsuite.methods.vjepa import VJEPA
from mimsuite.weights.files import WeightsFile, listed

_TARGET, _PREDICTOR = "target_encoder.", "predictor."
_NETWORKS = ("encoder.", _PREDICTOR, _TARGET)
_WRAPPED = re.compile(r"^(encoder|predictor|target_encoder)\.(?:module\.)?(?:backbone\.)?")
_TABLES = re.compile(r"\.(predictor_)?pos_embed$")
_HEADS = {192: 3, 384: 6, 768: 12, 1024: 16, 1280: 16, 1408: 22}
_FIRST = 2  # V-JEPA has at most this many mask tokens; V-JEPA 2 has ten
_LICENCE = "the released V-JEPA weights are CC-BY-NC-4.0: not for commercial use"


def understand(file: WeightsFile, hints: Hints) -> Published | None:
    """The checkpoint in our terms; ``None`` if it is of another family.

    Raises:
        UserError: a size that cannot be inferred.
    """
    names = {name: _WRAPPED.sub(r"\1.", name) for name in file.tensors}
    plain = {short: file.tensors[name] for name, short in names.items()}
    marks = (f"{_PREDICTOR}mask_tokens.0", f"{_TARGET}patch_embed.proj.weight")
    if not all(mark in plain for mark in marks):
        return None
    table = plain.get(f"{_TARGET}pos_embed")
    tokens = sum(name.startswith(f"{_PREDICTOR}mask_tokens.") for name in plain)
    first = table is not None and tokens <= _FIRST
    left = [
        name
        for name, short in names.items()
        if not short.startswith(_NETWORKS) or (not first and _TABLES.search(short))
    ]
    kept = {name: tensor for name, tensor in file.tensors.items() if name not in left}
    keys, notes = _encoder(plain, hints, table if first else None)
    keys |= _predictor(plain, hints, keys["model.encoder.heads"], first, tokens, notes)
    keys |= {"model.encoder.positions": "sin-cos" if first else "rotary"}
    keys |= {"model.scaled_start": not first}
    if first:
        notes.append(_LICENCE)
    if left:
        notes.insert(0, f"dropped: {listed(left, 20)}")
    layout = f"V-JEPA{'' if first else ' 2'} encoder, predictor and target encoder"
    recipe = _recipe(keys, first)
    found = published(replace(file, tensors=kept), VJEPA, layout, recipe, keys, notes)
    return replace(found, has_decoder=True)


def _encoder(
    tensors: Mapping[str, Tensor], hints: Hints, table: Tensor | None
) -> tuple[dict[str, Any], list[str]]:
    kernel = tensors[f"{_TARGET}patch_embed.proj.weight"]
    if kernel.ndim not in (4, 5) or kernel.shape[-1] != kernel.shape[-2]:
        raise UserError(f"patches of shape {tuple(kernel.shape)}: only square ones are supported")
    still = kernel.ndim == 4
    width, channels, patch = kernel.shape[0], kernel.shape[1], kernel.shape[-1]
    tubelet = 1 if still else kernel.shape[2]
    heads, notes = heads_of("encoder", width, hints, _HEADS)
    hidden = of_rank(tensors, f"{_TARGET}blocks.0.mlp.fc1.weight", 2).shape[0]
    stated = hints.facts.get("num_frames")
    frames = 1 if still else stated if isinstance(stated, int) else 16
    size: Any = hints.image_size
    if size is None and table is not None:
        size = math.isqrt(table.shape[1] * tubelet // frames) * patch
    if size is None:
        size = hints.facts.get("input_size")
    if size is None:
        size = 256
        notes.append(f"frames {frames} and image_size {size} assumed: the file states neither")
    elif not isinstance(size, int):
        size = size[0] if size[0] == size[1] else list(size)
    keys = {
        "kind": "clip-vit",
        "frames": frames,
        "tubelet": tubelet,
        "image_size": size,
        "patch_size": patch,
        "in_channels": channels,
        "width": width,
        "depth": count_blocks(tensors, f"{_TARGET}blocks."),
        "heads": heads,
        "mlp_ratio": mlp_ratio(hidden, width),
        **norm_eps(hints),
    }
    return {f"model.encoder.{key}": value for key, value in keys.items()}, list(notes)


def _predictor(
    tensors: Mapping[str, Tensor],
    hints: Hints,
    encoder_heads: int,
    first: bool,
    tokens: int,
    notes: list[str],
) -> dict[str, Any]:
    width = of_rank(tensors, f"{_PREDICTOR}predictor_embed.weight", 2).shape[0]
    block = f"{_PREDICTOR}predictor_blocks."
    hidden = of_rank(tensors, f"{block}0.mlp.fc1.weight", 2).shape[0]
    released = {width: encoder_heads} if first else {384: 12}
    heads, assumed = heads_of("decoder", width, hints, released)
    notes += assumed
    keys = {
        "width": width,
        "depth": count_blocks(tensors, block),
        "heads": heads,
        "mlp_ratio": mlp_ratio(hidden, width),
        "mask_tokens": tokens,
        "mask_token_by": "set" if first else "first",
    }
    return {f"model.predictor.{key}": value for key, value in keys.items()}


def _recipe(keys: Mapping[str, Any], first: bool) -> str:
    """The recipe of the nearest released size."""
    if keys["model.encoder.frames"] == 1:
        return "image/vjepa2-tiny-clipart"
    width = keys["model.encoder.width"]
    if first:
        return f"video/vjepa-vit{'h' if width >= 1280 else 'l'}16"
    return f"video/vjepa2-vit{'g' if width >= 1408 else 'h' if width >= 1280 else 'l'}16"
