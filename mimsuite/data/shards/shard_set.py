"""The shards of a set, found but not opened."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from mimsuite.data import splits
from mimsuite.data.shards.index import IndexHeader
from mimsuite.data.shards.scan import NoSample
from mimsuite.data.stores import Shard


@dataclass(frozen=True)
class ShardSet:
    """Shards by split; the key None holds shards whose names tell no split.

    Attributes:
        classes: that ``index.json`` lists.
        headers: reads the headers of the indexes of some of the shards, in their order; of a
            shard without samples there is none.
    """

    by_split: dict[str | None, list[Shard]]
    classes: list[str] | None
    headers: Callable[[Sequence[Shard]], list[IndexHeader | NoSample]]

    def sound(self, shards: Sequence[Shard]) -> tuple[list[Shard], list[IndexHeader], list[str]]:
        """Shards with samples, the headers of their indexes, and the names of those without any.

        Raises:
            NoSample: none of them has samples.
            DataError: one of them is damaged.
        """
        kept, headers, empty = list[Shard](), list[IndexHeader](), list[NoSample]()
        names = []
        for shard, header in zip(shards, self.headers(shards), strict=True):
            if isinstance(header, NoSample):
                empty.append(header)
                names.append(shard.name)
            else:
                kept.append(shard)
                headers.append(header)
        if empty and not kept:
            raise empty[0]
        return kept, headers, names


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
    """Shards by the split in their names; all under None unless every name tells one."""
    parts: dict[str | None, list[Named]] = {}
    for item in items:
        parts.setdefault(splits.split_in(item.name.removesuffix(".tar")), []).append(item)
    return {None: items} if None in parts else parts
