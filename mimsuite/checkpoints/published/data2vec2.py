"""The vision checkpoints of facebookresearch/fairseq examples/data2vec, version 2.

A released file holds the encoder that was trained and its decoder; the teacher lies in an entry
``_ema`` among the tensors. A fine-tuned one holds a classifier.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor

from mimsuite.checkpoints.published.layout import (
    Published,
    classifier_keys,
    model_keys,
    published,
)
from mimsuite.checkpoints.shapes import Architecture, Hints, infer_encoder, of_rank
from mimsuite.errors import UserError
from mimsuite.methods.classify import Classifier
from mimsuite.methods.data2vec2 import Data2Vec2
from mimsuite.models.post_norm_vit import classifier_names, stem_and_depth
from mimsuite.weights.files import WeightsFile, listed

_MARK = "modality_encoders.IMAGE.extra_tokens"
_DECODER = "modality_encoders.IMAGE.decoder."
_CLASSIFIER = "model."  # what its encoder is below
_HEADS = ("head.", "fc_norm.")
_LAYERS = {24: 18, 32: 24}  # blocks behind the stem -> how many are averaged; else all
_LICENCE = "the released data2vec 2.0 vision weights are CC-BY-NC: not for commercial use"


def understand(file: WeightsFile, hints: Hints) -> Published | None:
    """The checkpoint in our terms; ``None`` if it is of another family.

    Raises:
        UserError: a size that cannot be told.
    """
    if _CLASSIFIER + _MARK in file.tensors and "head.weight" in file.tensors:
        return _classifier(file, hints)
    return _pretrained(file, hints) if _MARK in file.tensors else None


def _pretrained(file: WeightsFile, hints: Hints) -> Published:
    encoder = _encoder(file.tensors, hints, "")
    keys, has_decoder = model_keys(encoder), any(n.startswith(_DECODER) for n in file.tensors)
    known = _known(Data2Vec2.import_reference(file.tensors), ("encoder.", "decoder.", "teacher."))
    kept, notes = _kept(file, known)
    if has_decoder:
        keys |= _decoder(file.tensors)
    main = keys["model.encoder.depth"] - keys["model.encoder.prenet"]
    keys["target.layers"] = _LAYERS.get(main, main)
    recipe = _recipe(keys, "in1k")
    if not any(name.startswith("_ema.") for name in file.tensors):
        notes.append("no teacher in it: one begins as its encoder")
        own = {k: t for k, t in kept.tensors.items() if not k.startswith(_DECODER)}
        teacher = {f"_ema.{name}": tensor for name, tensor in own.items()}
        kept = replace(kept, tensors={**kept.tensors, **teacher})
    layout = "data2vec 2.0 encoder" + (", decoder and teacher" if has_decoder else "")
    notes += [*encoder.assumed, _LICENCE]
    found = published(kept, Data2Vec2, layout, recipe, keys, notes)
    return replace(found, has_decoder=has_decoder)


def _classifier(file: WeightsFile, hints: Hints) -> Published:
    encoder = _encoder(file.tensors, hints, _CLASSIFIER)
    keys = {**model_keys(encoder), **classifier_keys(file)}
    names = classifier_names(*stem_and_depth(file.tensors, _CLASSIFIER))
    ours = {names.ours(name): tensor for name, tensor in file.tensors.items()}
    kept, notes = _kept(file, _known(ours, ("encoder.", *_HEADS)))
    layout = f"data2vec 2.0 classifier of {keys['target.classes']} classes"
    notes += [*encoder.assumed, _LICENCE]
    recipe = _recipe(keys, "finetune-in1k")
    return published(kept, Classifier, layout, recipe, keys, notes)


def _known(ours: Mapping[str, Tensor], parts: tuple[str, ...]) -> list[bool]:
    """Of each tensor, in order, whether the product has a name for it."""
    return [name.startswith(parts) for name in ours]


def _kept(file: WeightsFile, known: list[bool]) -> tuple[WeightsFile, list[str]]:
    """The file without tensors that have no place here, and a line that names these."""
    pairs = list(zip(file.tensors.items(), known, strict=True))
    left = [name for (name, _), kept in pairs if not kept]
    notes = [f"dropped: {listed(left, 20)}"] if left else []
    return replace(file, tensors=dict(pair for pair, kept in pairs if kept)), notes


def _encoder(tensors: Mapping[str, Tensor], hints: Hints, lead: str) -> Architecture:
    """``encoder.*`` keys of published names below ``lead``."""
    prenet, depth = stem_and_depth(tensors, lead)
    names = classifier_names(prenet, depth)
    below = {
        name.removeprefix("encoder."): tensor
        for published, tensor in tensors.items()
        if (name := names.ours(f"{_CLASSIFIER}{published.removeprefix(lead)}")).startswith(
            "encoder."
        )
    }
    if prenet == depth:
        raise UserError("it has no blocks behind its stem")
    # Sizes are read off a transformer without class token, whose table has no row for one either.
    plain = infer_encoder({k: t for k, t in below.items() if k != "cls_token"}, hints)
    own = {"encoder.kind": "post-norm-vit", "encoder.prenet": prenet}
    keys = {k: v for k, v in plain.keys.items() if k != "encoder.class_tokens"}
    return Architecture({**keys, **own}, plain.assumed)


def _decoder(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """Keys of the decoder; its groups show in the channels that a kernel reads."""
    name = "{}blocks.{}.0.weight".format
    first = of_rank(tensors, name(_DECODER, 0), 4)  # (E, D / groups, k, k)
    width = of_rank(tensors, f"{_DECODER}proj.weight", 2).shape[0]
    depth = 0
    while name(_DECODER, depth) in tensors:
        depth += 1
    keys = {
        "width": first.shape[0],
        "depth": depth,
        "kernel": first.shape[2],
        "groups": width // first.shape[1],
    }
    return {f"model.decoder.{key}": value for key, value in keys.items()}


def _recipe(keys: Mapping[str, Any], task: str) -> str:
    """The released size that is nearest."""
    width = keys["model.encoder.width"]
    if width >= 1280:
        fine = keys["model.encoder.patch_size"] < 16 or task != "in1k"
        return f"image/data2vec2-vith{14 if fine else 16}-{task}"
    return f"image/data2vec2-vit{'l' if width >= 1024 else 'b'}16-{task}"
