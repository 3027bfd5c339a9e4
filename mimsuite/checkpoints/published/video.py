"""The checkpoints of MCG-NJU/VideoMAE and OpenGVLab/VideoMAEv2.

* pretraining: ``encoder.``, ``decoder.``, ``encoder_to_decoder`` and ``mask_token``
* encoder only: bare names, or names below ``encoder.`` or ``backbone.``
* classifier: bare names, ``fc_norm`` and ``head``

Positions are not stored, so the tensors do not show frames and image size. They come from the
file's settings, otherwise 16 and 224.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor

from mimsuite.checkpoints.published.layout import Published, classifier_keys, published
from mimsuite.checkpoints.shapes import (
    Hints,
    count_blocks,
    heads_of,
    mlp_ratio,
    norm_eps,
    of_rank,
)
from mimsuite.errors import UserError
from mimsuite.methods.classify_video import VideoClassifier
from mimsuite.methods.video_mae import VideoMAE
from mimsuite.weights.files import WeightsFile

_KERNEL = "patch_embed.proj.weight"
_PREFIXES = ("encoder.", "backbone.")
# Width -> heads, and the letter of the released size.
_HEADS = {384: 6, 768: 12, 1024: 16, 1280: 16, 1408: 16}
_DECODER_HEADS = {192: 3, 384: 6, 512: 8}
# Training settings that a file may hold: name -> our key, and their values -> ours.
FACTS = {"mask_type": ("mask.kind", {"tube": "tube", "random": "spacetime"})}
_LETTERS = {384: "s16", 1024: "l16", 1280: "h16", 1408: "g14"}


def understand(file: WeightsFile, hints: Hints) -> Published | None:
    """The checkpoint in our terms; ``None`` if it is of another family.

    Raises:
        UserError: a size that cannot be inferred.
    """
    prefix = next(
        (p for p in ("", *_PREFIXES) if _is_video(file.tensors.get(p + _KERNEL))),
        None,
    )
    if prefix is None:
        return None
    keys, notes = _encoder(_below(file.tensors, prefix), hints)
    keys |= _clips(hints, notes)
    size = _LETTERS.get(keys["model.encoder.width"], "b16")
    if "encoder_to_decoder.weight" in file.tensors:
        keys |= _decoder(file.tensors, hints, notes)
        recipe = f"video/videomae2-vit{size}"
        return published(file, VideoMAE, "VideoMAE encoder and decoder", recipe, keys, notes)
    bare = _without(file, prefix)
    if "head.weight" in bare.tensors:
        keys.pop("model.encoder.final_norm", None)  # a classifier norms the mean instead
        if "fc_norm.weight" not in bare.tensors:
            raise UserError("its head does not read the normed mean token, so it is not supported")
        keys["target.classes"] = classifier_keys(bare)["target.classes"]
        layout = f"VideoMAE classifier of {keys['target.classes']} classes"
        recipe = f"video/videomae2-vit{size}-finetune-k400"
        return published(bare, VideoClassifier, layout, recipe, keys, notes)
    bare = replace(bare, tensors={f"encoder.{n}": t for n, t in bare.tensors.items()})
    recipe = f"video/videomae2-vit{size}"
    return published(bare, VideoMAE, "VideoMAE encoder without decoder", recipe, keys, notes)


def _is_video(kernel: Tensor | None) -> bool:
    return kernel is not None and kernel.ndim == 5


def _below(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}


def _without(file: WeightsFile, prefix: str) -> WeightsFile:
    """The file with ``prefix`` removed from names."""
    return replace(file, tensors={n.removeprefix(prefix): t for n, t in file.tensors.items()})


def _encoder(tensors: Mapping[str, Tensor], hints: Hints) -> tuple[dict[str, Any], list[str]]:
    kernel = of_rank(tensors, _KERNEL, 5)  # (D, C, t, p, p)
    width, channels, tubelet, patch, columns = kernel.shape
    if patch != columns:
        raise UserError(f"patches of {patch} x {columns} pixels: only square ones are supported")
    heads, notes = heads_of("encoder", width, hints, _HEADS)
    hidden = of_rank(tensors, "blocks.0.mlp.fc1.weight", 2).shape[0]
    frames, size = _size(hints, notes)
    keys = {
        "frames": frames,
        "tubelet": tubelet,
        "image_size": size,
        "patch_size": patch,
        "in_channels": channels,
        "width": width,
        "depth": count_blocks(tensors, "blocks."),
        "heads": heads,
        "mlp_ratio": mlp_ratio(hidden, width),
        "layer_scale": 0.1 if "blocks.0.gamma_1" in tensors else 0.0,  # any value: it is loaded
        "cosine_attention": "blocks.0.attn.scale" in tensors,
        **norm_eps(hints),
        **({} if "norm.weight" in tensors else {"final_norm": False}),
    }
    return {f"model.encoder.{key}": value for key, value in keys.items()}, list(notes)


def _size(hints: Hints, notes: list[str]) -> tuple[int, int | list[int]]:
    """(frames, image size): from the user, the file's settings or the released models."""
    frames = hints.facts.get("num_frames")
    known: Any = hints.image_size or hints.facts.get("input_size")
    if known is None or not isinstance(frames, int):
        notes.append("frames 16 and image_size 224 assumed where the file does not state them")
    size = 224 if known is None else known
    if not isinstance(size, int):
        size = int(size[0]) if size[0] == size[1] else [int(side) for side in size]
    return frames if isinstance(frames, int) else 16, size


def _clips(hints: Hints, notes: list[str]) -> dict[str, Any]:
    """The key for the distance of a clip's frames."""
    stride = hints.facts.get("sampling_rate")
    if isinstance(stride, int) and not isinstance(stride, bool) and stride > 0:
        return {"augment.stride": stride}
    notes.append("augment.stride=4 assumed: the file does not state the distance of frames")
    return {"augment.stride": 4}


def _decoder(tensors: Mapping[str, Tensor], hints: Hints, notes: list[str]) -> dict[str, Any]:
    width = of_rank(tensors, "encoder_to_decoder.weight", 2).shape[0]
    hidden = of_rank(tensors, "decoder.blocks.0.mlp.fc1.weight", 2).shape[0]
    heads, assumed = heads_of("decoder", width, hints, _DECODER_HEADS)
    notes += assumed
    keys: dict[str, Any] = {
        "model.decoder.width": width,
        "model.decoder.depth": count_blocks(tensors, "decoder.blocks."),
        "model.decoder.heads": heads,
        "model.decoder.mlp_ratio": mlp_ratio(hidden, width),
    }
    ratio, normalize = hints.facts.get("mask_ratio"), hints.facts.get("normlize_target")
    decoder_ratio = hints.facts.get("decoder_mask_ratio")
    if isinstance(ratio, float):
        keys["mask.ratio"] = ratio
    if isinstance(decoder_ratio, float) and decoder_ratio in (0.0, 0.25, 0.5, 0.75):
        keys["mask.decoder_ratio"] = decoder_ratio
    if isinstance(normalize, bool):
        keys["target.normalize"] = normalize
    for fact, (key, words) in FACTS.items():
        if (word := hints.facts.get(fact)) in words:
            keys[key] = words[word]
    return keys
