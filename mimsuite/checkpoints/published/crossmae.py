"""The pretraining checkpoints of TonyLianLong/CrossMAE.

They hold an encoder without a last norm and a decoder that attends to the encoder's layers.
Fine-tuned checkpoints have the layout of MAE's classifiers.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mimsuite.checkpoints.published.layout import Published, model_keys, published
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
from mimsuite.methods.cross_mae import CrossMAE
from mimsuite.weights.files import WeightsFile

_MARK = "wfm.linear.weight"
_HEADS = {384: 6, 768: 12, 1024: 16, 1280: 16}  # encoder width -> heads of the released models
_DECODER_HEADS = {256: 8, 512: 16}
_RECIPES = {384: "vits16", 1024: "vitl16", 1280: "vith14"}  # encoder width -> recipe
# Training settings that a checkpoint may hold: name -> our key and type.
FACTS: dict[str, tuple[str, type]] = {
    "mask_ratio": ("mask.ratio", float),
    "kept_mask_ratio": ("mask.decode_ratio", float),
    "norm_pix_loss": ("target.normalize", bool),
}


def understand(file: WeightsFile, hints: Hints) -> Published | None:
    """The checkpoint in our terms; ``None`` if it is of another family.

    Raises:
        UserError: a size, or the layers that the decoder reads, cannot be inferred.
    """
    tensors = file.tensors
    if _MARK not in tensors:
        return None
    encoder = infer_encoder(tensors, hints)
    width = encoder.keys["encoder.width"]
    heads, assumed = heads_of("encoder", width, hints, _HEADS)
    encoder.keys["encoder.heads"] = heads
    encoder.keys["encoder.final_norm"] = False
    decoder = _decoder(file, hints, encoder.keys["encoder.depth"])
    keys: dict[str, Any] = {**model_keys(encoder), **model_keys(decoder)}
    for name, (key, kind) in FACTS.items():
        if isinstance(file.facts.get(name), kind):
            keys[key] = file.facts[name]
    notes = [*assumed, *decoder.assumed]
    if "target.normalize" not in keys:
        notes.append("target.normalize=true assumed, as in the released weights")
    size = _RECIPES.get(width, "vitb16")
    if size == "vitb16" and encoder.keys["encoder.image_size"] == 448:
        size = "vitb16-448"
    layout = "CrossMAE encoder and decoder"
    return published(file, CrossMAE, layout, f"image/crossmae-{size}-in1k", keys, notes)


def _decoder(file: WeightsFile, hints: Hints, depth: int) -> Architecture:
    """``decoder.*`` keys; ``depth`` is the encoder's number of blocks."""
    tensors = file.tensors
    width = of_rank(tensors, "mask_token", 3).shape[2]
    hidden = of_rank(tensors, "decoder_blocks.0.mlp.fc1.weight", 2).shape[0]
    heads, assumed = heads_of("decoder", width, hints, _DECODER_HEADS)
    layers, note = _layers(file.facts, of_rank(tensors, _MARK, 2).shape[1], depth)
    keys = {
        "kind": "cross",
        "width": width,
        "depth": count_blocks(tensors, "decoder_blocks."),
        "heads": heads,
        "mlp_ratio": mlp_ratio(hidden, width),
        "layers": layers,
        "self_attention": "decoder_blocks.0.self_attn.qkv.weight" in tensors,
    }
    return Architecture({f"decoder.{key}": value for key, value in keys.items()}, assumed + note)


def _layers(facts: Mapping[str, Any], count: int, depth: int) -> tuple[list[int] | None, list[str]]:
    """The encoder layers that are mixed, from our or the published settings, otherwise from their
    number."""
    own = facts.get("decoder_layers")
    if isinstance(own, list) and len(own) == count:
        return own, []
    chosen, with_input = facts.get("use_fm"), facts.get("use_input")
    if isinstance(chosen, list) and all(isinstance(n, int) for n in chosen) and chosen != [-1]:
        first = [0] if with_input else []
        layers = sorted([*first, *(1 + number % depth for number in chosen)])
        if len(layers) == count:
            return layers, []
    if count == depth + 1:
        return None, []
    if count == depth:
        return list(range(1, depth + 1)), ["the decoder's layers: all blocks, by their number"]
    raise UserError(
        f"its decoder mixes {count} layers of {depth} blocks, and no settings (use_fm, use_input) "
        f"say which"
    )
