"""The decoders of bytetriper/RAE: ``model.pt`` of nyu-visionx/RAE-collections, or a whole training
checkpoint. The encoder is another file, named by the recipe; a checkpoint's says which recipe."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from mimsuite.checkpoints.published.layout import Published
from mimsuite.checkpoints.shapes import Hints
from mimsuite.errors import UserError
from mimsuite.methods.rae import RAE
from mimsuite.weights.files import WeightsFile

_MARKS = ("trainable_cls_token", "decoder_pos_embed", "decoder_pred.weight")
_HEADS = {768: 12, 1024: 16, 1152: 16}  # width -> heads, as released
_LAYER = "decoder_layers."
_DECODER, _ENCODER = "decoder.", "encoder."


def understand(file: WeightsFile, hints: Hints) -> Published | None:
    """The checkpoint in our terms; ``None`` if it is of another family.

    Raises:
        UserError: a size that cannot be inferred.
    """
    tensors, notes = file.tensors, [_ASSUMED]
    recipe = "image/rae-dinov2b-xl-in1k"
    if f"{_DECODER}{_MARKS[0]}" in tensors:
        recipe, note = _encoder_of(tensors)
        notes = [note]
        tensors = {
            name.removeprefix(_DECODER): tensor
            for name, tensor in tensors.items()
            if not name.startswith(_ENCODER)
        }
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
    if side * patch == 512 and recipe.startswith("image/rae-dinov2b"):
        recipe = "image/rae-dinov2b-xl-512-in1k"
    # Its names are joined from three of the file's, so they have no names of their own there.
    state = RAE.import_reference(tensors)
    return Published("RAE decoder", recipe, keys, state, {}, True, notes)


_ASSUMED = (
    "decoder alone: which encoder it decodes is not in the file; DINOv2-B is assumed. Set "
    "model.encoder.network as it was trained, then load it with --init-from"
)


def _encoder_of(tensors: dict[str, Tensor]) -> tuple[str, str]:
    """Recipe of the encoder that a training checkpoint holds beside its decoder, and a note.

    Only DINOv2 with registers has register tokens, and SigLIP2 has no class token.
    """
    names = [name for name in tensors if name.startswith(_ENCODER)]
    if any("register_tokens" in name for name in names):
        label, recipe = "DINOv2-B", "image/rae-dinov2b-xl-in1k"
    elif any("cls_token" in name for name in names):
        label, recipe = "MAE-B", "image/rae-maeb-xl-in1k"
    elif names:
        label, recipe = "SigLIP2-B", "image/rae-siglip2b-xl-in1k"
    else:
        return "image/rae-dinov2b-xl-in1k", _ASSUMED
    return recipe, (
        f"its frozen encoder ({len(names)} tensors) looks like {label} and is left out: name its "
        "own file with model.encoder.network.weights, then load the decoder with --init-from"
    )
