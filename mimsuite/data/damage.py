"""Damage: what cannot be read is named, counted and bounded; never silent, never endless."""

from __future__ import annotations

from dataclasses import dataclass

from mimsuite.errors import CorruptSample, DataError

__all__ = ["CorruptSample", "Damage", "DamageCount", "first_names"]

_ALWAYS_ALLOWED = 10  # corrupt samples, however small the set
_ALLOWED_SHARE = 0.001  # of the set, where that is more
_NAMED = 5  # samples that an error message lists


@dataclass(frozen=True)
class Damage:
    """A corrupt sample: its key, the shard it is in, and what is wrong with it."""

    key: str
    shard: str
    kind: str
    message: str

    def __str__(self) -> str:
        return f"{self.key} in {self.shard}: {self.message}"


class DamageCount:
    """Counts corrupt samples, each once, against the limits.

    Args:
        total: samples of the set.
    """

    def __init__(self, total: int) -> None:
        self.total = total
        self.limit = max(_ALWAYS_ALLOWED, int(total * _ALLOWED_SHARE))
        self.found: dict[tuple[str, str], Damage] = {}

    def add(self, damage: list[Damage]) -> list[Damage]:
        """Take note; returns those that were not known yet.

        Raises:
            DataError: more than max(10, 0.1 %) of the set is corrupt, or half of it.
        """
        new = []
        for item in damage:
            if (item.shard, item.key) not in self.found:
                self.found[item.shard, item.key] = item
                new.append(item)
        count = len(self.found)
        if count > self.limit or (count and 2 * count >= self.total):
            raise DataError(
                f"{count} of {self.total} samples are corrupt, more than may be replaced: "
                f"{first_names(list(self.found.values()))}. Mend them, or look for all with "
                f"`mimsuite data verify`"
            )
        return new


def first_names(damage: list[Damage]) -> str:
    """The first few of a list, for an error message of one line."""
    names = "; ".join(str(item) for item in damage[:_NAMED])
    return names + (" ..." if len(damage) > _NAMED else "")
