"""The checkpoints of facebookresearch/capi.

A released file holds the momentum copy of the trained network: encoder, decoder and the head of the
predictions. A gathered training checkpoint holds the trained one and the head of the clusters too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor

from mimsuite.checkpoints.published.layout import Published, published
from mimsuite.checkpoints.shapes import Hints, count_blocks, heads_of, mlp_ratio, of_rank
from mimsuite.config.keys.rolled_mask import RolledBlockMaskSection
from mimsuite.methods.capi import CAPI
from mimsuite.weights.files import WeightsFile, listed

_SLOW, _TRAINED, _CLUSTERS = "student_ema.", "student.", "teacher.head.layer."
_BACKBONE, _HEAD = "backbone.", "head.last_layer."
_MARKS = ("registers", "mask_token", "encoder.blocks.0.residual1.fn.rope.freqs")
_RECIPE = "image/capi-vitl14-in1k"


def understand(file: WeightsFile, hints: Hints) -> Published | None:
    """The checkpoint in our terms; ``None`` if it is of another family.

    Raises:
        UserError: a size that cannot be told.
    """
    leads = (_SLOW + _BACKBONE, _BACKBONE, "")
    lead = next((one for one in leads if all(one + m in file.tensors for m in _MARKS)), None)
    if lead is None:
        return None
    tensors = _named(file.tensors, lead)
    known = {name: tensor for name, tensor in tensors.items() if name.startswith(_parts())}
    left = [name for name in tensors if name not in known]
    notes = [f"dropped: {listed(left, 20)}"] if left else []
    if not any(name.startswith(_TRAINED) for name in known):
        notes.append("no trained network in it, only its momentum copy: it begins as that")
        slow = {k: t for k, t in known.items() if k.startswith(_SLOW)}
        known |= {_TRAINED + name.removeprefix(_SLOW): t for name, t in slow.items()}
    clusters = any(name.startswith(_CLUSTERS) for name in known)
    if not clusters:
        notes.append("no clusters in it: they begin fresh")
    keys, assumed = _keys(known, hints)
    whole = clusters and _TRAINED + _HEAD + "weight_v" in known
    layout = "CAPI encoder and decoder" + (", prototypes and clusters" if whole else "")
    kept = replace(file, tensors=known)
    found = published(kept, CAPI, layout, _RECIPE, keys, [*notes, *assumed])
    return replace(found, has_decoder=whole)


def _named(tensors: Mapping[str, Tensor], lead: str) -> dict[str, Tensor]:
    """Under the names of a training checkpoint, of which a released file has a part."""
    if lead.startswith(_SLOW):
        return dict(tensors)
    named = {}
    for name, tensor in tensors.items():
        other = name.startswith((_HEAD, _CLUSTERS))
        below = name if other or (name.startswith(lead) and lead) else _BACKBONE + name
        named[name if name.startswith(_CLUSTERS) else _SLOW + below] = tensor
    return named


def _parts() -> tuple[str, ...]:
    """How the names of what is read begin."""
    inside = ("encoder.blocks.", "decoder.blocks.", "patch_embed.", "registers", "mask_token")
    networks = (_SLOW, _TRAINED)
    backbones = [network + _BACKBONE + name for network in networks for name in inside]
    return (*backbones, *(network + _HEAD for network in networks), _CLUSTERS)


def _keys(tensors: Mapping[str, Tensor], hints: Hints) -> tuple[dict[str, Any], list[str]]:
    """Recipe keys of the model; the size of the images is in no tensor."""
    lead = _SLOW + _BACKBONE
    kernel = of_rank(tensors, f"{lead}patch_embed.weight", 4)  # (D, C, p, p)
    width, channels, patch = kernel.shape[0], kernel.shape[1], kernel.shape[2]
    heads, assumed = heads_of("encoder", width, hints)
    hidden = of_rank(tensors, f"{lead}encoder.blocks.0.residual2.fn.fc1.weight", 2).shape[0]
    layer_norm = f"{lead}encoder.blocks.0.residual1.norm.bias" in tensors
    height, wide = hints.image_size or (16 * patch, 16 * patch)
    if hints.image_size is None:
        assumed = [*assumed, f"images of {height} x {wide} pixels assumed: 16 x 16 patches"]
    keys = {
        "model.encoder.kind": "register-vit",
        "model.encoder.image_size": height if height == wide else [height, wide],
        "model.encoder.patch_size": patch,
        "model.encoder.in_channels": channels,
        "model.encoder.width": width,
        "model.encoder.depth": count_blocks(tensors, f"{lead}encoder.blocks."),
        "model.encoder.heads": heads,
        "model.encoder.mlp_ratio": mlp_ratio(hidden, width),
        "model.encoder.norm": "layer" if layer_norm else "rms",
        "model.encoder.registers": of_rank(tensors, f"{lead}registers", 3).shape[1],
        "model.decoder.depth": count_blocks(tensors, f"{lead}decoder.blocks."),
    }
    for name in (f"{_SLOW}{_HEAD}weight_v", f"{_CLUSTERS}weight"):
        if name in tensors:
            keys["target.clusters"] = of_rank(tensors, name, 2).shape[0]
    # Settings of the published masks that must change on a small grid; the file lacks them.
    section = RolledBlockMaskSection(ratio=0.65)
    if not section.decoded((height // patch) * (wide // patch)):
        keys["mask.predicted"] = 1.0
    return keys, assumed
