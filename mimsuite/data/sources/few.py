"""Low-shot subsets: a few labelled samples of each class.

`data.per_class` in fine-tuning and the low-shot probes use the same draws: draw d takes the first
samples of each class in a random order keyed by (d, class).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from mimsuite.data.damage import CorruptSample, Damage
from mimsuite.data.source import Payload, Sample, Source
from mimsuite.errors import DataError, UserError
from mimsuite.noise import keyed_rng

# Samples per class, or (below 1) the share of each class.
Amount = int | float


def few_of_each_class(source: Source, per_class: Amount, seed: int) -> Source:
    """The subset of the source chosen by :func:`draw`; unlabelled samples are left out.

    Raises:
        DataError: the source has no labels.
    """
    labels = source.labels() if source.labelled else np.full(1, -1)
    if labels.max() < 0:
        raise DataError(
            f"data.per_class={per_class} draws from labels; {source.name} has none in split "
            f"'{source.split}'{source.other_labels}"
        )
    return Subset(source, draw(labels, per_class, seed))


def draw(labels: np.ndarray, per_class: Amount, number: int) -> np.ndarray:
    """Positions of a few samples of each class, ascending.

    The draw is keyed by (number, class): it does not depend on model or training, and a smaller
    draw is a subset of a larger one.

    Args:
        labels: (N,) class ids in source order, -1 = unlabelled.
        per_class: largest number of samples per class; or a share of each class, rounded, at least
            one sample.
        number: number of the draw, from 0; in fine-tuning it is ``train.seed``.
    """
    drawn = []
    for label in np.unique(labels[labels >= 0]):
        rows = np.flatnonzero(labels == label)
        order = keyed_rng(number, "per class", int(label)).permutation(rows)
        drawn.append(order[: wanted(per_class, len(rows))])
    return np.sort(np.concatenate(drawn))


def wanted(per_class: Amount, samples: int) -> int:
    """The number of samples to draw from a class that has ``samples``."""
    return per_class if isinstance(per_class, int) else max(1, round(per_class * samples))


def lists(
    labels: np.ndarray, keys: Sequence[str], amounts: Sequence[Amount], numbers: Sequence[int]
) -> dict[str, list[list[str]]]:
    """Amount -> the keys of each draw. For other tools, those of the embedded sets are in
    ``embedded/low_shot.json``."""
    return {
        text_of(amount): [
            [keys[row] for row in draw(labels, amount, number).tolist()] for number in numbers
        ]
        for amount in amounts
    }


def text_of(amount: Amount) -> str:
    """20 -> ``20``; 0.01 -> ``1%``."""
    return str(amount) if isinstance(amount, int) else f"{100 * amount:g}%"


def amount_of(text: str) -> Amount:
    """``20`` -> 20; ``1%`` -> 0.01.

    Raises:
        UserError: the text is neither a number of samples nor a share.
    """
    try:
        amount: Amount = float(text[:-1]) / 100 if text.endswith("%") else int(text)
    except ValueError:
        amount = 0
    if amount <= 0 or (isinstance(amount, float) and amount >= 1):
        raise UserError(f"'{text}': give labels a class as 5, or a share of each class as 10%")
    return amount


class Subset(Source):
    """Some samples of a source; each is a shard of one sample.

    Args:
        source: the source to read from.
        positions: (n,) int64, positions in source order.
    """

    def __init__(self, source: Source, positions: np.ndarray) -> None:
        super().__init__(
            name=source.name,
            split=source.split,
            classes=source.classes,
            counts=np.ones(len(positions), dtype=np.int64),
            labelled=source.labelled,
            decoder=source.decoder,
        )
        self.unused, self.no_classes = source.unused, source.no_classes
        self.targets = None if source.targets is None else source.targets.take(positions)
        self._source, self.fetched = source, source.fetched
        self._places = [source.locate(int(position)) for position in positions]

    def key(self, shard: int, offset: int) -> str:
        return self._source.key(*self._places[shard])

    def shard_name(self, shard: int) -> str:
        return self._source.shard_name(self._places[shard][0])

    def label(self, shard: int, offset: int) -> int | None:
        return self._source.label(*self._places[shard])

    def payload(self, shard: int, offset: int) -> Payload:
        return self._source.payload(*self._places[shard])

    def label_map(self, shard: int, offset: int) -> Payload | None:
        return self._source.label_map(*self._places[shard])

    def has_label_map(self, shard: int, offset: int) -> bool:
        return self._source.has_label_map(*self._places[shard])

    def sample_bytes(self, shard: int, offset: int) -> int:
        return self._source.sample_bytes(*self._places[shard])

    def read(self, shard: int, offset: int) -> Sample:
        return self._source.read(*self._places[shard])

    def decode(self, sample: Sample) -> Any:
        return self._source.decode(sample)

    def damage(self, shard: int, offset: int, fault: CorruptSample) -> Damage:
        return self._source.damage(*self._places[shard], fault)
