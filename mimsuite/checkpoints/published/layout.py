"""A published checkpoint in our terms."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from mimsuite.checkpoints.shapes import Architecture
from mimsuite.errors import UserError
from mimsuite.methods import Method
from mimsuite.weights.files import WeightsFile


@dataclass(frozen=True)
class Published:
    """A published checkpoint, understood.

    Attributes:
        layout: what it is, in words.
        recipe: catalog recipe whose keys stand for what the file does not tell.
        keys: dotted recipe keys that it does tell.
        state: tensors under our names.
        published_names: our name -> the file's.
        has_decoder: it can reconstruct.
        notes: what was assumed or dropped, in words.
    """

    layout: str
    recipe: str
    keys: dict[str, Any]
    state: dict[str, Tensor]
    published_names: dict[str, str]
    has_decoder: bool
    notes: list[str]


def published(
    file: WeightsFile,
    method: type[Method],
    layout: str,
    recipe: str,
    keys: dict[str, Any],
    notes: list[str],
) -> Published:
    """The tensors of ``file`` under the names that ``method`` imports them to."""
    state = method.import_reference(file.tensors)
    names = dict(zip(state, file.tensors, strict=True))
    has_decoder = any(name.startswith("decoder.") for name in state)
    return Published(layout, recipe, keys, state, names, has_decoder, notes)


def model_keys(architecture: Architecture) -> dict[str, Any]:
    """Its keys as they are in a recipe."""
    return {f"model.{key}": value for key, value in architecture.keys.items()}


def classifier_keys(file: WeightsFile) -> dict[str, Any]:
    """Keys of a classifier in the layout of MAE's: its pooling, head and classes.

    Raises:
        UserError: the head is not one linear layer.
    """
    names = file.tensors.keys()
    standardised = "head.0.running_mean" in names
    weight = file.tensors.get("head.1.weight" if standardised else "head.weight")
    if weight is None:
        raise UserError("its classification head is not one linear layer")
    return {
        "model.pool": "mean" if "fc_norm.weight" in names else "cls",
        "model.head": "bn-linear" if standardised else "linear",
        "target.classes": len(weight),
    }
