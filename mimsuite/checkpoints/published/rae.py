"""The decoders of bytetriper/RAE: ``model.pt`` of nyu-visionx/RAE-collections, or a training
checkpoint's ``decoder`` tensors. The encoder is another file, named by the recipe."""

from __future__ import annotations

from typing import Any

from mimsuite.checkpoints.published.layout import Published
from mimsuite.checkpoints.shapes import Hints
from mimsuite.errors import UserError
from mimsuite.methods.rae import RAE
from mimsuite.weights.files import WeightsFile

_MARKS = ("trainable_cls_token", "decoder_pos_embed", "decoder_pred.weight")
_HEADS = {768: 12, 1024: 16, 1152: 16}  # width -> heads, as released
_LAYER = "decoder_layers."


def understand(file: WeightsFile, hints: Hints) -> Published | None:
    """The checkpoint in our terms; ``None`` if it is of another family.

    Raises:
        UserError: a size that cannot be inferred.
    """
    tensors = file.tensors
    if not all(mark in tensors for mark in _MARKS):
        return None
    width = tensors["decoder_pos_embed"].shape[-1]
    side = round((tensors["decoder_pos_embed"].shape[1] - 1) ** 0.5)
    patch = round((len(tensors["decoder_pred.weight"]) / 3) ** 0.5)
    if side**2 + 1 != tensors["decoder_pos_embed"].shape[1] or width not in _HEADS:
        raise UserError(
            f"a decoder of width {width} with {tensors['decoder_pos_embed'].shape[1]} positions is "
            f"none of the released ones"
        )
    numbers = {int(name.split(".")[1]) for name in tensors if name.startswith(_LAYER)}
    keys: dict[str, Any] = {
        "model.encoder.image_size": side * patch,
        "model.encoder.patch_size": patch,
        "model.decoder.width": width,
        "model.decoder.depth": len(numbers),
        "model.decoder.heads": _HEADS[width],
        "model.decoder.mlp_width": len(tensors[f"{_LAYER}0.intermediate.dense.bias"]),
    }
    notes = [
        "decoder alone: which encoder it decodes is not in the file; DINOv2-B is assumed. Set "
        "model.encoder.network as it was trained, then load it with --init-from"
    ]
    recipe = "image/rae-dinov2b-xl-in1k"
    if side * patch == 512:
        recipe = "image/rae-dinov2b-xl-512-in1k"
    # Its names are joined from three of the file's, so they have no names of their own there.
    state = RAE.import_reference(tensors)
    return Published("RAE decoder", recipe, keys, state, {}, True, notes)
