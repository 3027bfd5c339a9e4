"""The checkpoints of Alpha-VL/ConvMAE.

* encoder only: ``convmae.pth``, without the decoder and the fusion convolutions
* encoder and decoder: the checkpoints that pretraining writes
* classifier: fine-tuned and linear-probe checkpoints of ``models_convvit``
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from torch import Tensor

from mimsuite.checkpoints.published.layout import Published, classifier_keys, model_keys, published
from mimsuite.checkpoints.shapes import (
    Architecture,
    Hints,
    count_blocks,
    grid_of,
    heads_of,
    infer_decoder,
    mlp_ratio,
    of_rank,
)
from mimsuite.methods.classify import Classifier
from mimsuite.methods.convmae import ConvMAE
from mimsuite.weights.files import WeightsFile

_MARKS = ("pos_embed", "patch_embed1.proj.weight", "blocks3.0.attn.qkv.weight")
_LEFT = ("mask_token", "decoder_pos_embed")  # leftovers of a removed decoder


def understand(file: WeightsFile, hints: Hints) -> Published | None:
    """The checkpoint in our terms; ``None`` if it is of another family.

    Raises:
        UserError: a size that cannot be inferred.
    """
    names = file.tensors.keys()
    if not all(mark in names for mark in _MARKS):
        return None
    encoder = _encoder(file.tensors, hints)
    notes = list(encoder.assumed)
    if any(name.startswith("head.") for name in names):
        keys = {**model_keys(encoder), **classifier_keys(file)}
        layout = f"ConvViT classifier of {keys['target.classes']} classes"
        task = "linprobe" if keys["model.head"] == "bn-linear" else "finetune"
        return published(file, Classifier, layout, f"image/mcmae-b-{task}-in1k", keys, notes)
    recipe = "image/mcmae-b-in1k"
    if "decoder_embed.weight" not in names:
        kept = {name: tensor for name, tensor in file.tensors.items() if name not in _LEFT}
        notes += [f"dropped: {name}, without its decoder" for name in _LEFT if name in names]
        layout = "ConvViT encoder without decoder"
        return published(
            replace(file, tensors=kept), ConvMAE, layout, recipe, model_keys(encoder), notes
        )
    decoder = infer_decoder(file.tensors, hints)
    keys = {**model_keys(encoder), **model_keys(decoder)}
    for fact, key, kind in (
        ("mask_ratio", "mask.ratio", float),
        ("norm_pix_loss", "target.normalize", bool),
    ):
        if isinstance(file.facts.get(fact), kind):
            keys[key] = file.facts[fact]
    if "target.normalize" not in keys:
        notes.append("target.normalize=true assumed, as published")
    notes += decoder.assumed
    return published(file, ConvMAE, "ConvMAE encoder and decoder", recipe, keys, notes)


def _encoder(tensors: Mapping[str, Tensor], hints: Hints) -> Architecture:
    """``encoder.*`` keys."""
    kernels = [of_rank(tensors, f"patch_embed{stage}.proj.weight", 4) for stage in (1, 2, 3)]
    width = kernels[2].shape[0]
    conv_width = [kernel.shape[0] for kernel in kernels[:2]]
    patch = kernels[0].shape[2] * kernels[1].shape[2] * kernels[2].shape[2]
    rows, columns = grid_of(of_rank(tensors, "pos_embed", 3), patch, hints, class_tokens=0)
    heads, assumed = heads_of("encoder", width, hints)
    hidden = [
        of_rank(tensors, f"blocks{stage}.0.mlp.fc1.weight", rank).shape[0]
        for stage, rank in ((1, 4), (2, 4), (3, 2))
    ]
    size = (rows * patch, columns * patch)
    keys = {
        "kind": "convvit",
        "image_size": size[0] if size[0] == size[1] else list(size),
        "patch_size": patch,
        "in_channels": kernels[0].shape[1],
        "width": width,
        "depth": count_blocks(tensors, "blocks3."),
        "heads": heads,
        "mlp_ratio": mlp_ratio(hidden[2], width),
        "conv_strides": [kernel.shape[2] for kernel in kernels[:2]],
        "conv_width": conv_width,
        "conv_depth": [count_blocks(tensors, f"blocks{stage}.") for stage in (1, 2)],
        "conv_kernel": of_rank(tensors, "blocks1.0.attn.weight", 4).shape[2],
        "conv_mlp_ratio": [mlp_ratio(h, w) for h, w in zip(hidden, conv_width, strict=False)],
        "fusion": "stage1_output_decode.weight" in tensors,
    }
    return Architecture({f"encoder.{key}": value for key, value in keys.items()}, assumed)
