"""Weights files of teachers. Nothing is ever downloaded."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from mimsuite.errors import UserError
from mimsuite.paths import expand_path


def require(weights: str, key: str, where: str) -> Path:
    """The path of a teacher's weights in a recipe.

    Args:
        weights: the value of ``<key>.weights``.
        where: description of the expected file and its origin, for messages.

    Raises:
        UserError: ``<key>.weights`` is not set, or the path does not exist.
    """
    if not weights:
        raise UserError(
            f"{key}.weights is not set and nothing is downloaded: get {where}, and set "
            f"{key}.weights=FILE"
        )
    path = Path(expand_path(weights))
    if not path.exists():
        raise UserError(f"{key}.weights={weights}: no such file; it should be {where}")
    return path


def read_tensors(weights: str, key: str, where: str) -> dict[str, Tensor]:
    """Tensors of a weights file, read like any untrusted file.

    Raises:
        UserError: the file is missing or is no weights file.
    """
    # Imported here: the readers of weights files import methods, which import teachers.
    from mimsuite.weights.files import read_weights_file

    try:
        return read_weights_file(require(weights, key, where)).tensors
    except UserError as error:
        raise (
            error if str(error).startswith(key) else UserError(f"{key}.weights: {error}")
        ) from None
