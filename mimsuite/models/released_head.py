"""Files that hold the head of an attentive probe alone: its pooling and its linear layer."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from mimsuite.errors import UserError
from mimsuite.models.attentive import BlockPooler, QueryPooler
from mimsuite.weights.files import read_weights_file

_KEY = "model.pooler.weights"


def named(pooler: QueryPooler | BlockPooler, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors of a released head, without the prefix ``module.``, under the names of a classifier;
    without those that published code never reads."""
    return {
        pooler.published.ours(name): tensor
        for name, tensor in state.items()
        if not name.startswith(pooler.unread)
    }


def read(
    pooler: QueryPooler | BlockPooler, classes: int, path: str
) -> tuple[dict[str, Tensor], list[str]]:
    """The head in a file, and lines for the log; with other classes only its pooling.

    Raises:
        UserError: no weights file, or a head of another form or width.
    """
    file = read_weights_file(Path(path))
    state = named(pooler, file.tensors)
    target = {f"pooler.{name}": tensor.shape for name, tensor in pooler.state_dict().items()}
    lead = f"{_KEY}={path}"
    for name, shape in target.items():
        if name not in state:
            raise UserError(f"{lead} holds no {name}: it is no head of this form")
        if state[name].shape != shape:
            raise UserError(
                f"{lead}: {name} is {tuple(state[name].shape)}, in this recipe {tuple(shape)}"
            )
    if extra := [name for name in state if name not in target and not name.startswith("head.")]:
        raise UserError(f"{lead} holds {extra[0]}, which this head does not have: check depth")
    lines = [*file.notes, f"pooling taken from {path}"]
    weight = state.get("head.weight")
    if weight is not None and len(weight) == classes:
        return state, [*lines, f"head of {classes} classes taken from {path}"]
    return {name: state[name] for name in target}, lines
