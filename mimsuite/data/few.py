"""A few labelled samples of each class, drawn from a larger set."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from mimsuite.data.damage import CorruptSample, Damage
from mimsuite.data.source import Sample, Source
from mimsuite.errors import DataError
from mimsuite.noise import keyed_rng


def few_of_each_class(source: Source, per_class: int, seed: int) -> Source:
    """The source with at most ``per_class`` samples of each class and none without a label.

    The draw is keyed by (seed, class): it does not depend on the model or on training, and the
    samples of a smaller draw are among those of a larger one.

    Raises:
        DataError: the source has no labels.
    """
    labels = source.labels() if source.labelled else np.full(1, -1)
    if labels.max() < 0:
        raise DataError(
            f"data.per_class={per_class} draws from labels; {source.name} has none in split "
            f"'{source.split}'"
        )
    drawn = [
        keyed_rng(seed, "per class", int(label)).permutation(np.flatnonzero(labels == label))
        for label in np.unique(labels[labels >= 0])
    ]
    return Subset(source, np.sort(np.concatenate([rows[:per_class] for rows in drawn])))


class Subset(Source):
    """Some samples of a source; each is a shard of one sample.

    Args:
        source: where they are read.
        positions: (n,) int64, their positions in the source's order.
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
        self._source = source
        self._places = [source.locate(int(position)) for position in positions]

    def key(self, shard: int, offset: int) -> str:
        return self._source.key(*self._places[shard])

    def shard_name(self, shard: int) -> str:
        return self._source.shard_name(self._places[shard][0])

    def label(self, shard: int, offset: int) -> int | None:
        return self._source.label(*self._places[shard])

    def payload(self, shard: int, offset: int) -> bytes | np.ndarray:
        return self._source.payload(*self._places[shard])

    def sample_bytes(self, shard: int, offset: int) -> int:
        return self._source.sample_bytes(*self._places[shard])

    def read(self, shard: int, offset: int) -> Sample:
        return self._source.read(*self._places[shard])

    def decode(self, sample: Sample) -> Tensor:
        return self._source.decode(sample)

    def damage(self, shard: int, offset: int, fault: CorruptSample) -> Damage:
        return self._source.damage(*self._places[shard], fault)
