"""Initialisation of a classifier's head from rows of a trained head with other classes.

VideoMAE V2 (arXiv:2303.16727) fine-tunes from Kinetics-710 to 400, 600 or 700 of its classes. A
label map names the row of the trained head for each class.

Letters: K classes, K' classes of the weights.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from mimsuite.errors import UserError
from mimsuite.paths import expand_path

_KEY = "model.head_rows"
_LONGEST = 1 << 22  # bytes of a label map


def moved(
    state: Mapping[str, Tensor], own: Mapping[str, Tensor], path: str | Path
) -> tuple[dict[str, Tensor], list[str]]:
    """``state`` with the head rows chosen by a label map, and a line about them for the log.

    Args:
        state: weights; the tensors named in ``own`` are (K', ...).
        own: name -> tensor (K, ...) of the fresh head; it fills the rows that the map leaves out.
        path: path of the label map.

    Raises:
        UserError: the label map cannot be read or has another length, the weights have no head, or
            a number is out of range.
    """
    rows = read(path)
    lacking = [name for name in own if name not in state]
    if lacking:
        raise UserError(f"{_KEY}={path}: the weights have no {lacking[0]}; set it null")
    (classes,) = {len(tensor) for tensor in own.values()}
    known = min(len(state[name]) for name in own)
    if len(rows) != classes:
        raise UserError(f"{_KEY}={path} lists {len(rows)} classes, target.classes is {classes}")
    for number, row in enumerate(rows):
        if row is not None and not 0 <= row < known:
            raise UserError(
                f"{_KEY}={path}: class {number} is {row}, the weights have classes 0 to {known - 1}"
            )
    taken = [number for number, row in enumerate(rows) if row is not None]
    sources = [row for row in rows if row is not None]
    mapped = dict(state)
    for name, fresh in own.items():
        mapped[name] = fresh.detach().clone()
        mapped[name][taken] = state[name][sources].to(fresh)
    fresh_rows = f", {classes - len(taken)} fresh" if len(taken) < classes else ""
    return mapped, [f"head: {len(taken)} rows of {known} by {path}{fresh_rows}"]


def read(path: str | Path) -> list[int | None]:
    """The row of each class in a label map; ``None`` for a class without one."""
    try:
        with open(expand_path(str(path)), "rb") as file:
            data = file.read(_LONGEST + 1)
    except OSError as fault:
        raise UserError(f"{_KEY}={path}: cannot be read: {fault.strerror}") from None
    try:
        rows = json.loads(data) if len(data) <= _LONGEST else None
    except (ValueError, RecursionError):
        rows = None
    right = isinstance(rows, list) and all(row is None or type(row) is int for row in rows)
    if not right or not rows:
        raise UserError(f"{_KEY}={path}: a JSON list of numbers is expected, as [3, 0, null]")
    return rows
