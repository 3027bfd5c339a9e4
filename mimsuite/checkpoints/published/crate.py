"""The checkpoints of Ma-Lab-Berkeley/CRATE.

* encoder and decoder: ``mae_crate_*``
* classifier: ``CRATE_{tiny,small,base,large}``
"""

from __future__ import annotations

import math
from typing import Any

from mimsuite.checkpoints.published.layout import Published, published
from mimsuite.checkpoints.shapes import Hints, count_blocks, grid_of, heads_of, of_rank
from mimsuite.errors import UserError
from mimsuite.methods.classify import Classifier
from mimsuite.methods.crate_mae import CrateMAE
from mimsuite.weights.files import WeightsFile

_SIZES = {384: "tiny", 576: "small", 768: "base", 1024: "large"}  # by width
_HEADS = {384: 6, 576: 12, 768: 12, 1024: 16}


def understand(file: WeightsFile, hints: Hints) -> Published | None:
    """The checkpoint in our terms; ``None`` if it is of another family.

    Raises:
        UserError: a size that cannot be inferred.
    """
    names = file.tensors.keys()
    if "to_patch_embedding.2.weight" in names:
        return _classifier(file, hints)
    if "blocks.0.layers.0.0.fn.qkv.weight" in names:
        return _autoencoder(file, hints)
    return None


def _autoencoder(file: WeightsFile, hints: Hints) -> Published:
    tensors = file.tensors
    kernel = of_rank(tensors, "patch_embed.proj.weight", 4)  # (D, C, p, p)
    width, channels, patch = kernel.shape[0], kernel.shape[1], kernel.shape[2]
    grid = grid_of(of_rank(tensors, "decoder_pos_embed", 3), patch, hints)
    heads, notes = heads_of("encoder", width, hints, _HEADS)
    stored = file.facts.get("decoder_num_heads")
    decoder_heads = hints.decoder_heads or (stored if isinstance(stored, int) else heads)
    keys = {
        **_keys(patch, grid, channels, width, heads, count_blocks(tensors, "blocks.")),
        "model.encoder.embed": "linear",
        "model.encoder.trained_positions": False,
        "model.decoder.depth": count_blocks(tensors, "decoder_blocks."),
        "model.decoder.heads": decoder_heads,
    }
    ratio, normalize = file.facts.get("mask_ratio"), file.facts.get("norm_pix_loss")
    if isinstance(ratio, float):
        keys["mask.ratio"] = ratio
    if isinstance(normalize, bool):
        keys["target.normalize"] = normalize
    else:
        notes.append("target.normalize=true assumed; the file does not state it")
    notes.append("model.encoder.sparsity=0.5 assumed, as in the published code")
    recipe = f"image/crate-mae-{_size(width)}-in1k"
    return published(file, CrateMAE, "CRATE-MAE encoder and decoder", recipe, keys, notes)


def _classifier(file: WeightsFile, hints: Hints) -> Published:
    tensors = file.tensors
    width, numbers = of_rank(tensors, "to_patch_embedding.2.weight", 2).shape
    channels, patch = _channels(numbers)
    grid = grid_of(of_rank(tensors, "pos_embedding", 3), patch, hints)
    heads, notes = heads_of("encoder", width, hints, _HEADS)
    classes = of_rank(tensors, "mlp_head.1.weight", 2).shape[0]
    depth = count_blocks(tensors, "transformer.layers.")
    keys = {
        **_keys(patch, grid, channels, width, heads, depth),
        "model.encoder.embed": "normed",
        "model.encoder.trained_positions": True,
        "model.pool": "cls",
        "target.classes": classes,
    }
    notes.append("model.encoder.sparsity=0.1 assumed, as in the published code")
    recipe = f"image/crate-{_size(width)}-in1k"
    return published(
        file, Classifier, f"CRATE classifier of {classes} classes", recipe, keys, notes
    )


def _keys(
    patch: int, grid: tuple[int, int], channels: int, width: int, heads: int, depth: int
) -> dict[str, Any]:
    height, across = grid[0] * patch, grid[1] * patch
    return {
        "model.encoder.image_size": height if height == across else [height, across],
        "model.encoder.patch_size": patch,
        "model.encoder.in_channels": channels,
        "model.encoder.width": width,
        "model.encoder.depth": depth,
        "model.encoder.heads": heads,
    }


def _channels(numbers: int) -> tuple[int, int]:
    """Channels and patch size for patches of ``numbers`` values; three channels if possible."""
    for channels in (3, 1):
        patch = math.isqrt(numbers // channels)
        if patch * patch * channels == numbers:
            return channels, patch
    raise UserError(f"patches of {numbers} numbers are not squares of 3 channels or of 1")


def _size(width: int) -> str:
    """The released size; further training takes its settings."""
    return _SIZES.get(width, "base")
