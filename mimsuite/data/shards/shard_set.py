"""The shards of a set, found but not opened."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar, overload

import numpy as np

from mimsuite.data import splits
from mimsuite.data.shards.facts import ShardFacts
from mimsuite.data.shards.index import IndexHeader
from mimsuite.data.shards.manifest import Manifest
from mimsuite.data.shards.scan import NoSample
from mimsuite.data.stores import Shard

_Headers = Callable[[Sequence[Shard]], list[IndexHeader | NoSample]]


@dataclass(frozen=True)
class ShardSet:
    """Shards by split; the key None holds shards whose names tell no split.

    Attributes:
        classes: that ``index.json`` lists.
        headers: reads the headers of the indexes of some of the shards, in their order; of a
            shard without samples there is none.
        late_headers: the same for shards that were compared with ``index.json``: what is cut off
            since then is counted as samples are read.
        listed: ``index.json``.
        check: compares a shard, and its samples where they are counted, with ``index.json``.
    """

    by_split: dict[str | None, list[Shard]]
    classes: list[str] | None
    headers: _Headers
    late_headers: _Headers
    listed: Manifest | None = None
    check: Callable[[Shard, int | None], None] = lambda shard, samples: None

    def known(self, split: str | None) -> tuple[ShardFacts, np.ndarray] | None:
        """What ``index.json`` says of the shards of a split and the samples of each; None where
        their indexes have to be read.

        Raises:
            DataError: a shard is not as ``index.json`` says.
        """
        shards = self.by_split[split]
        found = self.listed.known(split, [shard.name for shard in shards]) if self.listed else None
        if found is not None:
            for shard in shards:
                self.check(shard, None)
        return found

    def sound(self, shards: Sequence[Shard]) -> tuple[list[Shard], list[IndexHeader], list[str]]:
        """Shards with samples, the headers of their indexes, and the names of those without any.

        Raises:
            NoSample: none of them has samples.
            DataError: one of them is damaged.
        """
        for shard in shards:
            self.check(shard, None)
        kept, headers, empty = list[Shard](), list[IndexHeader](), list[NoSample]()
        names = []
        for shard, header in zip(shards, self.headers(shards), strict=True):
            if isinstance(header, NoSample):
                empty.append(header)
                names.append(shard.name)
            else:
                self.check(shard, header.samples)
                kept.append(shard)
                headers.append(header)
        if empty and not kept:
            raise empty[0]
        return kept, headers, names


@dataclass(frozen=True)
class LateHeaders(Sequence[IndexHeader]):
    """Headers that are read when they are asked for, as a shard is opened."""

    shards: Sequence[Shard]
    read: _Headers

    def __len__(self) -> int:
        return len(self.shards)

    @overload
    def __getitem__(self, number: int) -> IndexHeader: ...

    @overload
    def __getitem__(self, number: slice) -> LateHeaders: ...

    def __getitem__(self, number: int | slice) -> IndexHeader | LateHeaders:
        if isinstance(number, slice):
            return LateHeaders(self.shards[number], self.read)
        (header,) = self.read([self.shards[number]])
        if isinstance(header, NoSample):
            raise header
        return header


def header_or_none(read: Callable[[], IndexHeader]) -> IndexHeader | NoSample:
    """The header of an index; of a shard without samples what says so."""
    try:
        return read()
    except NoSample as fault:
        return fault


class _Named(Protocol):
    @property
    def name(self) -> str: ...


Named = TypeVar("Named", bound=_Named)


def by_name(items: list[Named]) -> dict[str | None, list[Named]]:
    """Shards by the split in their names; all under None unless every name has one."""
    parts: dict[str | None, list[Named]] = {}
    for item in items:
        parts.setdefault(splits.split_in(item.name.removesuffix(".tar")), []).append(item)
    return {None: items} if None in parts else parts
