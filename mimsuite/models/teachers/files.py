"""Files that teachers are read from. Nothing is ever downloaded."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from mimsuite.errors import UserError
from mimsuite.paths import expand_path


def require(weights: str, key: str, where: str) -> Path:
    """The path that a recipe gives for a teacher.

    Args:
        weights: the value of ``<key>.weights``.
        where: what it should be and where to get it, in words.

    Raises:
        UserError: not set, or nothing there.
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
    """Tensors of a weights file, read as every file that was made elsewhere.

    Raises:
        UserError: not there, or no weights file.
    """
    # Here and not above: the readers of weights files know methods, which use teachers.
    from mimsuite.weights.files import read_weights_file

    try:
        return read_weights_file(require(weights, key, where)).tensors
    except UserError as error:
        raise (
            error if str(error).startswith(key) else UserError(f"{key}.weights: {error}")
        ) from None
