"""Concatenation of several sources."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mimsuite.data.damage import CorruptSample, Damage
from mimsuite.data.source import Payload, Source
from mimsuite.data.sources.label_targets import Targets


class JoinedSource(Source):
    """The samples of several sources, concatenated; shard numbers continue.

    It is labelled only if all sources are labelled and have the same classes, so that a class id
    has one meaning.

    Attributes:
        sources: the sources, in order.
    """

    def __init__(self, sources: list[Source]) -> None:
        first = sources[0]
        agree = all(source.classes == first.classes for source in sources)
        super().__init__(
            name=", ".join(source.name for source in sources),
            split=first.split,
            classes=first.classes if agree else None,
            counts=np.concatenate([source.counts for source in sources]),
            labelled=agree and all(source.labelled for source in sources),
            decoder=first.decoder,
        )
        for source in sources:
            self.unused.update(source.unused)
        self.no_classes = next((s.no_classes for s in sources if s.no_classes), None)
        self.targets = _joined([source.targets for source in sources])
        self.sources = sources
        self.fetched = any(source.fetched for source in sources)
        self._first = np.cumsum([0, *(len(source.counts) for source in sources)])

    def _of(self, shard: int) -> tuple[Source, int]:
        number = int(np.searchsorted(self._first, shard, side="right")) - 1
        return self.sources[number], shard - int(self._first[number])

    def key(self, shard: int, offset: int) -> str:
        source, shard = self._of(shard)
        return source.key(shard, offset)

    def shard_name(self, shard: int) -> str:
        source, shard = self._of(shard)
        return source.shard_name(shard)

    def label(self, shard: int, offset: int) -> int | None:
        source, shard = self._of(shard)
        return source.label(shard, offset) if self.labelled else None

    def payload(self, shard: int, offset: int) -> Payload:
        source, shard = self._of(shard)
        return source.payload(shard, offset)

    def label_map(self, shard: int, offset: int) -> Payload | None:
        source, shard = self._of(shard)
        return source.label_map(shard, offset)

    def has_label_map(self, shard: int, offset: int) -> bool:
        source, shard = self._of(shard)
        return source.has_label_map(shard, offset)

    def sample_bytes(self, shard: int, offset: int) -> int:
        source, shard = self._of(shard)
        return source.sample_bytes(shard, offset)

    def damage(self, shard: int, offset: int, fault: CorruptSample) -> Damage:
        source, shard = self._of(shard)
        return source.damage(shard, offset, fault)


def _joined(targets: Sequence[Targets | None]) -> Targets | None:
    """The targets of all samples; None if a source has none or its columns differ."""
    known = [one for one in targets if one is not None]
    alike = {(one.kind, one.names, one.values.shape[1]) for one in known}
    if len(known) < len(targets) or len(alike) != 1:
        return None
    return Targets(known[0].kind, np.concatenate([one.values for one in known]), known[0].names)
