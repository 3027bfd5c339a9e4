"""The checkpoints of Atten4Vis/CAE and of its predecessor lxtGH/CAE.

* pretraining: encoder, regressor (``regresser.`` or ``pretext_neck.``) and decoder. Both store a
  second copy of the encoder, which is dropped.
* CAE v2: the same without decoder blocks, and with a head for the teacher's features
* classifiers: fine-tuned (relative position biases) and probes (linear, attentive)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from mimsuite.checkpoints.published.layout import Published, classifier_keys, model_keys
from mimsuite.checkpoints.shapes import (
    Architecture,
    Hints,
    count_blocks,
    heads_of,
    infer_encoder,
    mlp_ratio,
    of_rank,
)
from mimsuite.errors import UserError
from mimsuite.methods.cae import COPIES, from_published
from mimsuite.methods.classify import UNUSED
from mimsuite.models import BEiT
from mimsuite.tokens import sincos_2d
from mimsuite.weights.files import WeightsFile

_BIAS = "blocks.0.attn.q_bias"  # plain transformers have none
FACTS = {"ratio_mask_patches": "mask.ratio", "min_mask_patches_per_block": "mask.min_block"}
_HEADS = {768: 12, 1024: 16}  # width of regressor and decoder -> heads of the released models


def understand(file: WeightsFile, hints: Hints) -> Published | None:
    """The checkpoint in our terms; ``None`` if it is of another family.

    Raises:
        UserError: a size that cannot be inferred.
    """
    names = file.tensors.keys()
    if f"encoder.{_BIAS}" in names and "mask_token" in names:
        return _pretrained(file, hints)
    kernel = file.tensors.get("patch_embed.proj.weight")
    if _BIAS in names and kernel is not None and kernel.ndim == 4:  # video kernels have five axes
        return _classifier(file, hints)
    return None


def _pretrained(file: WeightsFile, hints: Hints) -> Published:
    known = {from_published(name): name for name in file.tensors if not name.startswith(COPIES)}
    state = {ours: file.tensors[name] for ours, name in known.items()}
    encoder = _encoder(_below(state, "encoder."), hints)
    regressor = _regressor(state, hints)
    notes = [*encoder.assumed, *regressor.assumed]
    keys = {**model_keys(encoder), **model_keys(regressor)}
    size = keys["model.encoder.image_size"]
    patch = keys["model.encoder.patch_size"]
    grid = [side // patch for side in ([size, size] if isinstance(size, int) else size)]
    if "regressor.pos_embed" not in state:
        table = sincos_2d(keys["model.regressor.width"], (grid[0], grid[1]), row_first=True)
        state["regressor.pos_embed"] = F.pad(table, (0, 0, 1, 0))[None]
        notes.append("regressor.pos_embed: computed, since this layout does not store it")
    outputs = len(of_rank(state, "decoder.head.weight", 2))
    depth = count_blocks(state, "decoder.blocks.")
    if depth:
        method, layout = "cae", "CAE"
        keys["model.decoder.depth"] = depth
        keys["target.tokenizer.codes"] = outputs
        keys["augment.second_view.image_size"] = [8 * side for side in grid]
    else:
        method, layout = "caev2", "CAE v2"
        keys["target.teacher.projection"] = outputs
    for fact, key in FACTS.items():
        if isinstance(file.facts.get(fact), float | int):
            keys[key] = file.facts[fact]
    if copied := [name for name in file.tensors if name.startswith(COPIES)]:
        part = copied[0].partition(".")[0]
        notes.append(f"dropped: {part}, its copy of the encoder ({len(copied)} tensors)")
    recipe = f"image/{method}-{_size(keys)}-in1k"
    return Published(layout, recipe, keys, state, known, True, notes)


def _classifier(file: WeightsFile, hints: Hints) -> Published:
    if any(name.startswith("rel_pos_bias.") for name in file.tensors):
        raise UserError("its blocks share relative position biases, which is not supported")
    encoder = _encoder(file.tensors, hints)
    keys = {**model_keys(encoder), "model.encoder.relative_positions": _biased(file.tensors)}
    attentive = "query_token" in file.tensors
    if attentive:
        keys |= {"model.pool": "attentive", "model.head": "linear"}
        keys["target.classes"] = len(of_rank(file.tensors, "head.weight", 2))
    else:
        keys |= classifier_keys(file)
    task = "finetune"
    if attentive or keys["model.head"] == "bn-linear":
        task = "attentive" if attentive else "linprobe"
    known = {BEiT.published.ours(n): n for n in file.tensors if not n.startswith(UNUSED)}
    state = {ours: file.tensors[name] for ours, name in known.items()}
    notes = list(encoder.assumed)
    if len(known) < len(file.tensors):
        notes.append("dropped: norm2_cross of the attentive probe, which its code never uses")
    layout = f"CAE classifier of {keys['target.classes']} classes"
    recipe = f"image/cae-{_size(keys)}-{task}-in1k"
    return Published(layout, recipe, keys, state, known, False, notes)


def _encoder(tensors: Mapping[str, Tensor], hints: Hints) -> Architecture:
    """``encoder.*`` keys from a state with the names of BEiT's encoder."""
    plain = infer_encoder(tensors, hints)
    scales = {} if "blocks.0.gamma_1" in tensors else {"encoder.layer_scale": 0.0}
    return Architecture({**plain.keys, "encoder.kind": "beit", **scales}, plain.assumed)


def _regressor(state: Mapping[str, Tensor], hints: Hints) -> Architecture:
    """``regressor.*`` keys from a state with our names."""
    width = of_rank(state, "regressor.mask_token", 3).shape[2]
    hidden = of_rank(state, "regressor.blocks.0.mlp_cross.fc1.weight", 2).shape[0]
    heads, assumed = heads_of("decoder", width, hints, _HEADS)
    keys = {
        "width": width,
        "depth": count_blocks(state, "regressor.blocks."),
        "heads": heads,
        "mlp_ratio": mlp_ratio(hidden, width),
    }
    if "decoder.blocks.0.mlp.fc1.weight" in state and "decoder.blocks.0.gamma_1" not in state:
        keys["layer_scale"] = 0.0
    return Architecture({f"regressor.{key}": value for key, value in keys.items()}, assumed)


def _below(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {n.removeprefix(prefix): t for n, t in state.items() if n.startswith(prefix)}


def _biased(tensors: Mapping[str, Tensor]) -> bool:
    return "blocks.0.attn.relative_position_bias_table" in tensors


def _size(keys: Mapping[str, Any]) -> str:
    """The nearest released size; further training takes its settings."""
    return "large" if keys["model.encoder.width"] == 1024 else "base"
