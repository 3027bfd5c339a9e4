"""Corrupt samples: each is named and counted, and too many of them end the run."""

from __future__ import annotations

from dataclasses import dataclass

from mimsuite.errors import CorruptSample, DataError

__all__ = ["CorruptSample", "Damage", "DamageCount", "first_names"]

_ALWAYS_ALLOWED = 10  # corrupt samples allowed in a set of any size
_ALLOWED_SHARE = 0.001  # corrupt samples allowed in a large set, as a share of it
_NAMED = 5  # samples listed in an error message


@dataclass(frozen=True)
class Damage:
    """A corrupt sample: its key, its shard, and what is wrong."""

    key: str
    shard: str
    kind: str
    message: str

    def __str__(self) -> str:
        return f"{self.key} in {self.shard}: {self.message}"


class DamageCount:
    """Counts distinct corrupt samples and enforces the limits.

    Args:
        total: samples in the set.
    """

    def __init__(self, total: int) -> None:
        self.total = total
        self.limit = max(_ALWAYS_ALLOWED, int(total * _ALLOWED_SHARE))
        self.found: dict[tuple[str, str], Damage] = {}

    def add(self, damage: list[Damage]) -> list[Damage]:
        """Count corrupt samples; returns those not counted before.

        Raises:
            DataError: more than max(10 samples, 0.1 %) of the set are corrupt, or half of it.
        """
        new = []
        for item in damage:
            if (item.shard, item.key) not in self.found:
                self.found[item.shard, item.key] = item
                new.append(item)
        count = len(self.found)
        if count > self.limit or (count and 2 * count >= self.total):
            raise DataError(
                f"{count} of {self.total} samples are corrupt, more than allowed: "
                f"{first_names(list(self.found.values()))}. Repair them, or list all with "
                f"`mimsuite data verify`"
            )
        return new


def first_names(damage: list[Damage]) -> str:
    """The first few corrupt samples, for a one-line error message."""
    names = "; ".join(str(item) for item in damage[:_NAMED])
    return names + (" ..." if len(damage) > _NAMED else "")
