"""Parsing of label texts to regression targets (numbers) or multi-label targets.

Letters: N samples, K numbers or labels per sample.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from mimsuite.data.sources.label_texts import are_several
from mimsuite.errors import DataError

Kind = Literal["regression", "multilabel"]
_SEPARATORS = re.compile(r"[;|]")
_COMMAS = re.compile(",")
_MISSING = frozenset({"", "none", "nan", "null", "n/a", "na"})
_NO_LABELS = _MISSING | {"-1", "-1.0"}


@dataclass(frozen=True)
class Targets:
    """Regression or multi-label targets of N samples.

    Attributes:
        kind: ``regression`` (numbers) or ``multilabel`` (any of K labels per sample).
        values: (N, K) float32; 0 or 1 for labels. NaN = unknown; for labels, whole rows.
        names: the K label names, sorted; None for numbers.
    """

    kind: Kind
    values: np.ndarray
    names: tuple[str, ...] | None = None

    @property
    def known(self) -> np.ndarray:
        """(N,) bool: samples with at least one known value."""
        found: np.ndarray = ~np.isnan(self.values).all(axis=1)
        return found

    def take(self, rows: np.ndarray) -> Targets:
        """The targets of some samples, by row number."""
        return replace(self, values=self.values[rows])

    def under(self, names: Sequence[str] | None, width: int, whose: str) -> tuple[Targets, int]:
        """The targets in the columns of a model, and the number of labels that it lacks.

        Args:
            names: names of the model's columns; None for numbers.
            width: number of the model's columns.
            whose: name of the source, for messages.

        Raises:
            DataError: another count of numbers per sample, or the model knows none of the labels.
        """
        if names is None or self.names is None:
            if self.values.shape[1] != width:
                raise DataError(
                    f"{whose} has {self.values.shape[1]} numbers a sample, the model has {width}"
                )
            return self, 0
        values = np.zeros((len(self.values), len(names)), dtype=np.float32)
        places = {name: place for place, name in enumerate(names)}
        if not places.keys() & set(self.names):
            raise DataError(f"{whose} has none of the labels of training ({names[0]} ...)")
        strange = 0
        for column, name in enumerate(self.names):
            if name in places:
                values[:, places[name]] = self.values[:, column]
            else:
                strange += int(np.nansum(self.values[:, column]))
        values[~self.known] = np.nan
        return replace(self, values=values, names=tuple(names)), strange


def parse(kind: Kind, texts: Sequence[str], whose: str) -> Targets:
    """Parse label texts to targets; ``;`` or ``|`` separates several values of one sample.

    Args:
        texts: one per sample; empty, ``nan`` or ``none``: unknown. ``-1`` is a number in
            regression and unknown in multi-label; ``;`` alone: the sample has no label.
        whose: name of the source, for messages.

    Raises:
        DataError: no sample has a target, or a target is not a finite number, or counts differ.
    """
    found = _numbers(texts, whose) if kind == "regression" else _labels(texts)
    if not found.known.any():
        raise DataError(f"{whose}: data.targets={kind}, and no sample has a label to read")
    return found


def _numbers(texts: Sequence[str], whose: str) -> Targets:
    rows = [
        [] if _is_in(text.strip(";| "), _MISSING) else _SEPARATORS.split(text) for text in texts
    ]
    width = next((len(cells) for cells in rows if cells), 1)
    values = np.full((len(rows), width), np.nan, dtype=np.float32)
    for row, cells in enumerate(rows):
        if not cells:
            continue
        if len(cells) != width:
            raise DataError(
                f"{whose}: data.targets=regression: '{texts[row][:60]}' (sample {row + 1}) has "
                f"{len(cells)} numbers, the first has {width}"
            )
        values[row] = [_number(cell, row, whose) for cell in cells]
    return Targets("regression", values)


def _number(cell: str, row: int, whose: str) -> float:
    if _is_in(cell, _MISSING):
        return math.nan
    try:
        value = float(np.float32(float(cell)))
    except (ValueError, OverflowError):
        value = math.inf
    if not math.isfinite(value):
        raise DataError(
            f"{whose}: data.targets=regression: '{cell.strip()[:60]}' (sample {row + 1}) is no "
            "finite number; leave the cell empty where the target is not known"
        )
    return value


def _labels(texts: Sequence[str]) -> Targets:
    # A comma belongs to a name (tench, Tinca tinca), unless its parts occur in other labels.
    known = [text for text in texts if not _is_in(text, _NO_LABELS)]
    commas = are_several(sorted(set(known))) and not any(_SEPARATORS.search(text) for text in known)
    split = (_COMMAS if commas else _SEPARATORS).split
    rows = [
        None if _is_in(text, _NO_LABELS) else {part.strip() for part in split(text) if part.strip()}
        for text in texts
    ]
    names = tuple(sorted({name for labels in rows for name in labels or ()}))
    places = {name: place for place, name in enumerate(names)}
    values = np.zeros((len(rows), len(names)), dtype=np.float32)
    for row, labels in enumerate(rows):
        if labels is None:
            values[row] = np.nan
        else:
            values[row, [places[name] for name in labels]] = 1.0
    return Targets("multilabel", values, names)


def _is_in(text: str, words: frozenset[str]) -> bool:
    return text.strip().lower() in words
