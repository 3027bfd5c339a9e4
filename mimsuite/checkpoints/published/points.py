"""The checkpoints of Pang-Yatian/Point-MAE, Amazingren/Point-CMAE and aHapBean/PCP-MAE.

* pretraining: ``MAE_encoder.*`` and one or two decoders; PCP-MAE's also ``pred_pos_proj.*``
* classifier: fine-tuned and linear checkpoints, with ``cls_head_finetune.*``
* part segmentation, with ``propagation_0.*``

For the last two, PCP-MAE's layout equals the others'; it differs in the input width of the position
MLP.

The tensors do not show the number of points and groups in training. They come from the file's
settings (``npoints``, ``num_group``, ``group_size``), otherwise from the catalog's recipe; weights
do not depend on them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from torch import Tensor

from mimsuite.checkpoints.published.layout import Published, published
from mimsuite.checkpoints.shapes import Hints, count_blocks, heads_of, mlp_ratio, of_rank
from mimsuite.methods.pcp_mae import PCPMAE
from mimsuite.methods.point_classify import PointClassifier
from mimsuite.methods.point_cmae import PointCMAE
from mimsuite.methods.point_mae import PointMAE
from mimsuite.methods.point_segment import PointSegmenter
from mimsuite.weights.files import WeightsFile

_MARK = "encoder.first_conv.0.weight"
_HEADS = {384: 6}  # width -> heads of the released models
_PARTS = (4, 2, 2, 4, 4, 3, 3, 2, 4, 2, 6, 2, 3, 3, 3, 3)  # parts per class in ShapeNetPart


def understand(file: WeightsFile, hints: Hints) -> Published | None:
    """The checkpoint in our terms; ``None`` if it is of another family.

    Raises:
        UserError: a size that cannot be inferred.
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
    # In every released model the decoder has the encoder's width and heads.
    heads, assumed = heads_of("decoder", width, hints, {width: keys["model.encoder.heads"]})
    ratio = _ratio(tensors, "MAE_decoder.", width)
    keys |= {
        "model.encoder.group_size": of_rank(tensors, "increase_dim.0.weight", 3).shape[0] // 3,
        "model.decoder.depth": count_blocks(tensors, "MAE_decoder.blocks."),
        "model.decoder.heads": heads,
        "model.decoder.mlp_ratio": ratio,
    }
    notes += assumed
    if "pred_pos_proj.0.weight" in tensors:
        keys["model.centers.depth"] = depth = count_blocks(tensors, "pred_pos_decoder.blocks.")
        if depth:
            keys["model.centers.heads"] = heads
            keys["model.centers.mlp_ratio"] = _ratio(tensors, "pred_pos_decoder.", width)
        recipe = "points/pcp-shapenet55"
        return published(file, PCPMAE, "PCP-MAE encoder and decoder", recipe, keys, notes)
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
    family = _family(keys)
    layout = f"{family.name} classifier of {len(last)} classes"
    recipe = f"points/{family.recipes}finetune-modelnet40"
    return published(file, PointClassifier, layout, recipe, keys, notes)


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
    family = _family(keys)
    layout = f"{family.name} part segmentation, {parts} parts"
    recipe = f"points/{family.recipes}segment-shapenetpart"
    return published(file, PointSegmenter, layout, recipe, keys, notes)


class _Family(NamedTuple):
    """The method of a downstream model's encoder, and the prefix of its recipes."""

    name: str
    recipes: str


def _family(keys: dict[str, Any]) -> _Family:
    if keys["model.encoder.positions"] == "sincos":
        return _Family("PCP-MAE", "pcp-")
    return _Family("Point-MAE", "")


def _ratio(tensors: Mapping[str, Tensor], prefix: str, width: int) -> float:
    hidden = of_rank(tensors, f"{prefix}blocks.0.mlp.fc1.weight", 2).shape[0]
    return mlp_ratio(hidden, width)


def _encoder(
    tensors: Mapping[str, Tensor], prefix: str, hints: Hints
) -> tuple[dict[str, Any], list[str]]:
    """`model.encoder` keys, and notes on what was assumed for them."""
    first, lifted, mixed = (
        of_rank(tensors, f"{prefix}encoder.{name}.weight", 3).shape[0]
        for name in ("first_conv.0", "first_conv.3", "second_conv.0")
    )
    width = of_rank(tensors, f"{prefix}encoder.second_conv.3.weight", 3).shape[0]
    heads, assumed = heads_of("encoder", width, hints, _HEADS)
    read = of_rank(tensors, f"{prefix}pos_embed.0.weight", 2).shape[1]
    keys = {
        "tokenizer": [first, lifted, mixed],
        "width": width,
        "depth": count_blocks(tensors, f"{prefix}blocks.blocks."),
        "heads": heads,
        "mlp_ratio": _ratio(tensors, f"{prefix}blocks.", width),
        "positions": "coordinates" if read == 3 else "sincos",
    }
    for fact, key in (("npoints", "points"), ("num_group", "groups"), ("group_size", "group_size")):
        if isinstance(hints.facts.get(fact), int):
            keys[key] = hints.facts[fact]
    return {f"model.encoder.{key}": value for key, value in keys.items()}, assumed
