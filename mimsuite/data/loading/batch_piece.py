"""Pieces of a micro-batch, as workers return them, and how they are joined."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from mimsuite.batch import Batch
from mimsuite.data.damage import Damage
from mimsuite.data.image.augment import stack, unit
from mimsuite.errors import MimsuiteError


@dataclass(frozen=True)
class Part:
    """Rows of one micro-batch, in ascending order.

    Attributes:
        rows: row numbers in the micro-batch.
        index: row numbers in the global batch; for evaluation, positions in the source.
        views: name -> (len(rows), ...); empty without rows.
        labels: class ids, -1 = unlabelled; or (K,) targets.
        damage: (row, corrupt sample) pairs.
        fault: an error for the user, to be raised in the main process.
    """

    rows: list[int] = field(default_factory=list)
    index: list[int] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    labels: list[int | np.ndarray] = field(default_factory=list)
    views: dict[str, Tensor] = field(default_factory=dict)
    damage: list[tuple[int, Damage]] = field(default_factory=list)
    fault: MimsuiteError | None = None


class PartBuilder:
    """Collects rows into a :class:`Part`."""

    def __init__(self) -> None:
        self._part = Part()
        self._views: dict[str, list[Tensor]] = {}

    def add(
        self,
        row: int,
        index: int,
        key: str,
        label: int | np.ndarray | None,
        views: dict[str, Tensor],
    ) -> None:
        self._part.rows.append(row)
        self._part.index.append(index)
        self._part.keys.append(key)
        self._part.labels.append(-1 if label is None else label)
        for name, view in views.items():
            self._views.setdefault(name, []).append(view)

    def damaged(self, row: int, damage: list[Damage]) -> None:
        self._part.damage.extend((row, item) for item in damage)

    def done(self, fault: MimsuiteError | None = None) -> Part:
        part = self._part
        views = {} if fault else {name: stack(rows) for name, rows in self._views.items()}
        return Part(part.rows, part.index, part.keys, part.labels, views, part.damage, fault)


def join(parts: list[Part], *, labelled: bool, pin: bool) -> Batch:
    """Join parts that together hold all rows of a micro-batch.

    Args:
        labelled: whether the batch carries labels.
        pin: put views into page-locked memory, so copies to a GPU overlap with compute.
    """
    parts = [part for part in parts if part.views]
    order = sorted((row, p, i) for p, part in enumerate(parts) for i, row in enumerate(part.rows))
    views = {
        name: _join_view([part.views[name] for part in parts], order, pin)
        for name in parts[0].views
    }
    index = torch.tensor([parts[p].index[i] for _, p, i in order])
    labels = torch.tensor(np.array([parts[p].labels[i] for _, p, i in order])) if labelled else None
    return Batch(
        views=views,
        index=index.pin_memory() if pin else index,
        keys=[parts[p].keys[i] for _, p, i in order],
        label=labels.pin_memory() if labels is not None and pin else labels,
    )


def _join_view(rows_of: list[Tensor], order: list[tuple[int, int, int]], pin: bool) -> Tensor:
    """One view of all parts, its rows in the order of the micro-batch."""
    if len({rows.dtype for rows in rows_of}) > 1:
        rows_of = [unit(rows) for rows in rows_of]
    if len(rows_of) == 1 and not pin:
        return rows_of[0]
    shape = (len(order), *rows_of[0].shape[1:])
    joined = torch.empty(shape, dtype=rows_of[0].dtype, pin_memory=pin)
    places: list[list[int]] = [[0] * len(rows) for rows in rows_of]
    for place, (_, p, i) in enumerate(order):
        places[p][i] = place
    for rows, at in zip(rows_of, places, strict=True):
        joined.numpy()[at] = rows.numpy()  # numpy copies whole rows; torch would index each element
    return joined


def damage_in_order(parts: list[Part]) -> list[Damage]:
    """Corrupt samples in row order, for any number of workers."""
    met = [item for part in parts for item in part.damage]
    return [damage for _, damage in sorted(met, key=lambda item: item[0])]
