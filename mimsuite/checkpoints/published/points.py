"""The checkpoints of Pang-Yatian/Point-MAE and Amazingren/Point-CMAE.

* pretraining: ``MAE_encoder.*`` and one decoder, or two
* classifier: fine-tuned and linear checkpoints, with ``cls_head_finetune.*``
* part segmentation, with ``propagation_0.*``

No tensor tells how many points and groups a model was trained with: those of the file's settings
(``npoints``, ``num_group``, ``group_size``) are taken, else those of the catalog's recipe; weights
do not depend on them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from mimsuite.checkpoints.published.layout import Published, published
from mimsuite.checkpoints.shapes import Hints, count_blocks, heads_of, mlp_ratio, of_rank
from mimsuite.methods.point_classify import PointClassifier
from mimsuite.methods.point_cmae import PointCMAE
from mimsuite.methods.point_mae import PointMAE
from mimsuite.methods.point_segment import PointSegmenter
from mimsuite.weights.files import WeightsFile

_MARK = "encoder.first_conv.0.weight"
_HEADS = {384: 6}  # width -> heads of the released models
_PARTS = (4, 2, 2, 4, 4, 3, 3, 2, 4, 2, 6, 2, 3, 3, 3, 3)  # of the classes of ShapeNetPart


def understand(file: WeightsFile, hints: Hints) -> Published | None:
    """The checkpoint in our terms; ``None`` if it is of another family.

    Raises:
        UserError: a size that cannot be told.
    """
    tensors = file.tensors
    if f"MAE_encoder.{_MARK}" in tensors:
        return _pretrained(file, hints)
    if _MARK not in tensors:
        return None
    keys, notes = _encoder(tensors, "", hints)
    if "propagation_0.mlp_convs.0.weight" in tensors:
        return _segmenter(file, keys, notes)
    if "cls_head_finetune.0.weight" in tensors:
        return _classifier(file, keys, notes)
    return None


def _pretrained(file: WeightsFile, hints: Hints) -> Published:
    tensors = file.tensors
    keys, notes = _encoder(tensors, "MAE_encoder.", hints)
    width = keys["model.encoder.width"]
    # Of the encoder's width, it has the encoder's heads in every released model.
    heads, assumed = heads_of("decoder", width, hints, {width: keys["model.encoder.heads"]})
    hidden = of_rank(tensors, "MAE_decoder.blocks.0.mlp.fc1.weight", 2).shape[0]
    keys |= {
        "model.encoder.group_size": of_rank(tensors, "increase_dim.0.weight", 3).shape[0] // 3,
        "model.decoder.depth": count_blocks(tensors, "MAE_decoder.blocks."),
        "model.decoder.heads": heads,
        "model.decoder.mlp_ratio": mlp_ratio(hidden, width),
    }
    notes += assumed
    if "mask_token1" in tensors:
        recipe = "points/cmae-shapenet55"
        return published(file, PointCMAE, "Point-CMAE with two decoders", recipe, keys, notes)
    recipe = "points/mae-shapenet55"
    return published(file, PointMAE, "Point-MAE encoder and decoder", recipe, keys, notes)


def _classifier(file: WeightsFile, keys: dict[str, Any], notes: list[str]) -> Published:
    linear = "cls_head_finetune.1.weight" not in file.tensors
    last = of_rank(file.tensors, f"cls_head_finetune.{0 if linear else 8}.weight", 2)
    keys |= {"model.head": "linear" if linear else "mlp3", "target.classes": len(last)}
    notes.append("model.encoder.points and groups as for ModelNet40: set them for other data")
    layout = f"Point-MAE classifier of {len(last)} classes"
    return published(file, PointClassifier, layout, "points/finetune-modelnet40", keys, notes)


def _segmenter(file: WeightsFile, keys: dict[str, Any], notes: list[str]) -> Published:
    tensors = file.tensors
    convs = count_blocks(tensors, "propagation_0.mlp_convs.")
    sizes = [len(tensors[f"propagation_0.mlp_convs.{n}.weight"]) for n in range(convs)]
    keys["model.propagation"] = sizes
    parts, objects = len(tensors["convs3.weight"]), tensors["label_conv.0.weight"].shape[1]
    if isinstance(taps := file.facts.get("taps"), list):
        keys["model.taps"] = taps
    if isinstance(of_objects := file.facts.get("parts"), list):
        keys["target.parts"] = of_objects
    elif (parts, objects) == (sum(_PARTS), len(_PARTS)):
        keys["target.parts"] = list(_PARTS)
    layout = f"Point-MAE part segmentation, {parts} parts"
    return published(file, PointSegmenter, layout, "points/segment-shapenetpart", keys, notes)


def _encoder(
    tensors: Mapping[str, Tensor], prefix: str, hints: Hints
) -> tuple[dict[str, Any], list[str]]:
    """`model.encoder` keys, and what had to be assumed for them."""
    first, lifted, mixed = (
        of_rank(tensors, f"{prefix}encoder.{name}.weight", 3).shape[0]
        for name in ("first_conv.0", "first_conv.3", "second_conv.0")
    )
    width = of_rank(tensors, f"{prefix}encoder.second_conv.3.weight", 3).shape[0]
    heads, assumed = heads_of("encoder", width, hints, _HEADS)
    hidden = of_rank(tensors, f"{prefix}blocks.blocks.0.mlp.fc1.weight", 2).shape[0]
    keys = {
        "tokenizer": [first, lifted, mixed],
        "width": width,
        "depth": count_blocks(tensors, f"{prefix}blocks.blocks."),
        "heads": heads,
        "mlp_ratio": mlp_ratio(hidden, width),
    }
    for fact, key in (("npoints", "points"), ("num_group", "groups"), ("group_size", "group_size")):
        if isinstance(hints.facts.get(fact), int):
            keys[key] = hints.facts[fact]
    return {f"model.encoder.{key}": value for key, value in keys.items()}, assumed
