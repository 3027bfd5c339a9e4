"""Recognise published checkpoints and translate them to our names and recipe keys.

Each family of layouts has one file with ``understand(file, hints)``, which returns ``None`` for
checkpoints of other families.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from mimsuite.checkpoints.published import (
    cae,
    capi,
    convmae,
    crate,
    crossmae,
    data2vec2,
    huggingface,
    ijepa,
    mae,
    maskalign,
    mmpretrain,
    pixio,
    points,
    rae,
    video,
    vjepa,
    volumes,
)
from mimsuite.checkpoints.published.layout import Published
from mimsuite.checkpoints.published.preprocessor import input_facts
from mimsuite.checkpoints.published.wrappers import unwrapped
from mimsuite.checkpoints.shapes import Hints
from mimsuite.errors import UserError
from mimsuite.text import clean
from mimsuite.weights.files import WeightsFile, listed

__all__ = ["Published", "understand"]

# Families with unique names come first; timm's names are the least specific and come last.
_FAMILIES = (
    *(
        vjepa,
        video,
        volumes,
        points,
        cae,
        convmae,
        crate,
        maskalign,
        data2vec2,
        capi,
        ijepa,
        crossmae,
        pixio,
        rae,
    ),
    mae,
)
# Libraries with their own names for the same models.
_LIBRARIES = (huggingface, mmpretrain)

# Common checkpoints that are not supported, by a part of a name that only they have.
_OTHERS = (
    ("encoder.layer.0.attention.", "Hugging Face ViT"),
    ("layers.0.attention.q_proj", "Hugging Face ViT"),
    ("blocks.0.ls1.gamma", "DINOv2"),
    ("relative_position_bias_table", "BEiT or Swin"),
    ("layer4.", "ResNet"),
)


def understand(file: WeightsFile, hints: Hints) -> tuple[WeightsFile, Published]:
    """Recognise a checkpoint by its names and infer its architecture from its shapes.

    Returns:
        the file without wrappers, under published names and with all facts; and its description.

    Raises:
        UserError: not a supported layout; the message says what it looks like.
    """
    try:
        facts, notes = input_facts(file.beside)
        file = replace(file, facts={**file.facts, **facts}, notes=[*file.notes, *notes])
        for inside in unwrapped(file):
            view = _under_published_names(inside)
            for family in _FAMILIES:
                found = family.understand(view, replace(hints, facts=view.facts))
                if found is not None:
                    return view, found
    except UserError as error:
        raise UserError(f"{file.path}: {error}") from None
    raise UserError(_unknown(file))


def _under_published_names(file: WeightsFile) -> WeightsFile:
    for library in _LIBRARIES:
        if (translated := library.translate(file)) is not None:
            return translated
    return file


def _unknown(file: WeightsFile) -> str:
    names = list(file.tensors)
    lead = f"{file.path} is not a run, checkpoint or known weights file: "
    likely = _likely(names)
    kind = file.beside.config.get("model_type")
    if kind is not None:
        return f"{lead}its config.json says model_type {clean(str(kind))[:40]}, which is not read"
    if likely is not None:
        return f"{lead}it looks like a {likely} checkpoint, which is not supported"
    missing = [mark for mark in mae.MARKS if mark not in file.tensors]
    return f"{lead}found {len(names)} tensors ({listed(names, 3)}) but no {listed(missing, 1)}"


def _likely(names: Iterable[str]) -> str | None:
    text = "\n".join(names)
    return next((label for mark, label in _OTHERS if mark in text), None)
