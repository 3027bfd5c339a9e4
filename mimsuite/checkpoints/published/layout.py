"""The description of a published checkpoint, under our names and recipe keys."""

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
    """A recognised published checkpoint.

    Attributes:
        layout: description in words.
        recipe: catalog recipe that gives the keys which the file does not determine.
        keys: dotted recipe keys that the file determines.
        state: tensors under our names.
        published_names: our name -> the file's.
        has_decoder: whether it can reconstruct.
        notes: lines that report what was assumed or dropped.
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
    """Describe ``file``, with tensors under the names of ``method``."""
    state = method.import_reference(file.tensors)
    names = dict(zip(state, file.tensors, strict=True))
    has_decoder = any(name.startswith("decoder.") for name in state)
    return Published(layout, recipe, keys, state, names, has_decoder, notes)


def model_keys(architecture: Architecture) -> dict[str, Any]:
    """The architecture's keys as dotted recipe keys."""
    return {f"model.{key}": value for key, value in architecture.keys.items()}


def classifier_keys(file: WeightsFile) -> dict[str, Any]:
    """Keys of a classifier in the layout of MAE's: pooling, head and classes.

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
