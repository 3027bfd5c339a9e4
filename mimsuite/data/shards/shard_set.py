"""The shards of a set, found but not opened."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from mimsuite.data import splits
from mimsuite.data.shards.index import IndexHeader
from mimsuite.data.stores import Shard


@dataclass(frozen=True)
class ShardSet:
    """Shards by split; the key None holds shards whose names tell no split.

    Attributes:
        classes: that ``index.json`` lists.
        headers: reads the headers of the indexes of some of the shards, in their order.
    """

    by_split: dict[str | None, list[Shard]]
    classes: list[str] | None
    headers: Callable[[Sequence[Shard]], list[IndexHeader]]


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
