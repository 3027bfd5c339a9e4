"""The pretraining checkpoints of OpenDriveLab/maskalign.

They also hold the frozen teacher (``clip_model.*``), which is dropped with a note. Fine-tuned
checkpoints have the layout of MAE's classifiers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor

from mimsuite.checkpoints.published.layout import Published, model_keys, published
from mimsuite.checkpoints.shapes import Hints, infer_encoder
from mimsuite.errors import UserError
from mimsuite.methods.mask_align import MaskAlign
from mimsuite.weights.files import WeightsFile

_TEACHER = "clip_model."
_HEADS = "distill_heads."
_HEAD_WIDTH = 64  # width of an attention head in every published teacher
# Training settings that a checkpoint may hold: name -> our key, and their values -> ours.
FACTS: dict[str, tuple[str, dict[str, str]]] = {
    "mask_type": ("mask.kind", {"attention": "attentive", "random": "random"}),
    "loss_weights": ("target.levels", {"top5": "top5", "mean": "mean", "last": "last"}),
    "target_norm": (
        "target.normalize",
        {"whiten": "layer-norm", "l2": "unit", "none": "none"},
    ),
    "loss_type": ("target.loss", {"smoothl1": "smooth-l1", "l2": "mse"}),
}


def understand(file: WeightsFile, hints: Hints) -> Published | None:
    """The checkpoint in our terms; ``None`` if it is of another family.

    Raises:
        UserError: a size that cannot be inferred.
    """
    if not any(name.startswith(_HEADS) for name in file.tensors):
        return None
    kept = {name: t for name, t in file.tensors.items() if not name.startswith(_TEACHER)}
    taken_out = len(file.tensors) - len(kept)
    encoder = infer_encoder(kept, hints)
    keys = {**model_keys(encoder), **_alignment(kept), **_teacher(file.tensors)}
    notes = list(encoder.assumed)
    if taken_out:
        notes.append(f"dropped: {taken_out} tensors {_TEACHER}*, the frozen teacher")
    for fact, (key, words) in FACTS.items():
        word = file.facts.get(fact)
        if isinstance(word, str) and word in words:
            keys[key] = words[word]
    if isinstance(ratio := file.facts.get("mask_ratio"), float):
        keys["mask.ratio"] = ratio
    size = "l" if encoder.keys["encoder.width"] == 1024 else "b"
    layout, recipe = "MaskAlign encoder and heads", f"image/maskalign-{size}-in1k"
    found = published(replace(file, tensors=kept), MaskAlign, layout, recipe, keys, notes)
    return replace(found, has_decoder=True)  # the alignment heads count as a decoder


def _alignment(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """Keys for the mixing of blocks and the heads, and what these show about the teacher."""
    count = len({name.split(".")[1] for name in tensors if name.startswith(_HEADS)})
    mixture = tensors.get("distill_weights")
    fusion = "none"
    if mixture is not None:
        fusion = "linear" if mixture.shape[0] == mixture.shape[1] else "sum"
    head, last = "linear", "weight"
    if f"{_HEADS}0.{last}" not in tensors:
        first = tensors.get(f"{_HEADS}0.0.weight")
        if first is None:
            raise UserError(f"the kind of its {_HEADS}* cannot be inferred")
        head, last = ("norm-linear", "1.weight") if first.ndim == 1 else ("mlp", "2.weight")
        if head == "mlp" and f"{_HEADS}0.1.weight" in tensors:
            head = "mlp2"
    width = tensors[f"{_HEADS}0.{last}"].shape[0]
    return {
        "model.fusion": fusion,
        "model.head": head,
        "target.teacher.depth": count,
        "target.teacher.width": width,
        "target.teacher.heads": max(1, width // _HEAD_WIDTH),
    }


def _teacher(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """The teacher's patch size, if the checkpoint holds the teacher."""
    for name, tensor in tensors.items():
        if name.startswith(_TEACHER) and "patch_embed" in name and tensor.ndim == 4:
            return {"target.teacher.patch_size": tensor.shape[2]}
    return {}
