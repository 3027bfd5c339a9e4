"""Parsing of label texts to class ids: numbers, names, missing labels, labels that are no class."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from mimsuite.errors import UserError

_NONE = frozenset({"", "-1", "-1.0", "none", "nan", "null", "n/a"})
_LARGEST_ID = 1_000_000
_NUMBER = re.compile(r"[-+]?[0-9]+(\.[0-9]*)?([eE][-+]?[0-9]{1,3})?")


@dataclass(frozen=True)
class ClassIds:
    """The classes found in label texts.

    Attributes:
        ids: label text -> class id; without texts that stand for "unlabelled".
        names: class names, indexed by id; None if there are no classes.
        other: for messages, a description of labels that are not classes; None: they are classes.
    """

    ids: dict[str, int] = field(default_factory=dict)
    names: list[str] | None = None
    other: str | None = None


def is_label(text: str) -> bool:
    """Whether a text is a label: not empty, ``-1``, ``None`` or ``nan``, and not ``;`` alone, which
    in a multi-label set means "no label"."""
    return text.strip(";| \t").lower() not in _NONE


def class_ids(texts: Iterable[str]) -> ClassIds:
    """The classes of a set from the label texts of all its splits.

    Whole numbers are ids and name themselves; gaps are allowed. Other texts are names, sorted.
    Numbers with a fraction or below -1, and several labels in one text (``cat;dog``), are no
    classes.

    Raises:
        UserError: an id above a million.
    """
    labels = sorted({text for text in texts if is_label(text)})
    if not labels:
        return ClassIds()
    numbers = [_number(text) for text in labels]
    if all(number is not None for number in numbers):
        return _of_numbers(labels, [number for number in numbers if number is not None])
    if are_several(labels):
        return ClassIds(other="labels that name several classes each, which are not read as one")
    return ClassIds({text: index for index, text in enumerate(labels)}, labels)


def _number(text: str) -> float | None:
    return float(text) if _NUMBER.fullmatch(text) else None


def _of_numbers(labels: list[str], numbers: list[float]) -> ClassIds:
    # A table with missing labels stores ids as floats: 0.0, 1.0, 2.0.
    if not all(number >= 0 and number.is_integer() for number in numbers):
        return ClassIds(other="labels that are numbers with a fraction or a sign, and no classes")
    ids = {text: int(number) for text, number in zip(labels, numbers, strict=True)}
    largest = max(ids.values())
    if largest > _LARGEST_ID:
        raise UserError(f"class id {largest} is no id: count classes from 0")
    return ClassIds(ids, [str(index) for index in range(largest + 1)])


def are_several(labels: list[str]) -> bool:
    """Whether texts hold several labels: joined by ``;`` or ``|``, or by commas if the parts recur.

    A comma alone is not enough: ``tench, Tinca tinca`` is one class.
    """
    if any(mark in text.strip(";|") for text in labels for mark in ";|"):
        return True
    joined = [text for text in labels if "," in text]
    parts = [part.strip() for text in labels for part in text.split(",")]
    return bool(joined) and len(set(parts)) < len(labels)
