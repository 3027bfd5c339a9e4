"""The checkpoints of facebookresearch/pixio: timm's names, and several class tokens.

* encoder only: the released files
* encoder and decoder: the checkpoints that pretraining writes
* encoder and projector: the checkpoints that distillation writes; the projector is left out
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from mimsuite.checkpoints.published.layout import Published, model_keys, published
from mimsuite.checkpoints.shapes import Hints, heads_of, infer_decoder, infer_encoder
from mimsuite.methods.pixio import Pixio
from mimsuite.weights.files import WeightsFile

_HEADS = {768: 12, 1024: 16, 1280: 16, 1536: 24, 3072: 32}  # encoder width -> heads, as released
_PROJECTOR = "last_proj."  # used in distillation
_TRAINED = {"trained_positions": True, "position_start": "random"}


def understand(file: WeightsFile, hints: Hints) -> Published | None:
    """The checkpoint in our terms; ``None`` if it is of another family.

    Raises:
        UserError: a size that cannot be inferred.
    """
    token, kernel = file.tensors.get("cls_token"), file.tensors.get("patch_embed.proj.weight")
    if token is None or kernel is None or token.ndim != 3 or token.shape[1] < 2:
        return None
    encoder = infer_encoder(file.tensors, hints)
    width = encoder.keys["encoder.width"]
    heads, notes = heads_of("encoder", width, hints, _HEADS)
    encoder.keys.update({f"encoder.{key}": value for key, value in _TRAINED.items()})
    encoder.keys["encoder.heads"] = heads
    keys: dict[str, Any] = model_keys(encoder)
    layout = "Pixio encoder without decoder"
    if any(name.startswith(_PROJECTOR) for name in file.tensors):
        kept = {k: tensor for k, tensor in file.tensors.items() if not k.startswith(_PROJECTOR)}
        file = replace(file, tensors=kept)
        notes = [*notes, "the projector to its teacher's width is left out"]
    if "decoder_embed.weight" in file.tensors:
        layout = "Pixio encoder and decoder"
        decoder = infer_decoder(file.tensors, hints)
        decoder.keys.update({f"decoder.{key}": value for key, value in _TRAINED.items()})
        keys |= model_keys(decoder)
        notes = [*notes, *decoder.assumed]
    rows, columns = (side // encoder.keys["encoder.patch_size"] for side in _sides(encoder.keys))
    side = next(side for side in (4, 2, 1) if rows % side == 0 and columns % side == 0)
    keys["mask.side"] = file.facts.get("mask_grid", side)
    recipe = f"image/pixio-{'vit5b16-web' if width == 3072 else 'vith16-in1k'}"
    return published(file, Pixio, layout, recipe, keys, notes)


def _sides(keys: dict[str, Any]) -> tuple[int, int]:
    size = keys["encoder.image_size"]
    return (size, size) if isinstance(size, int) else (size[0], size[1])
