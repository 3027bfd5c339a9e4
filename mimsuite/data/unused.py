"""Content of sources and files that is not used: it is counted, named and reported.

Readers of folders, lists and shards add what they skip to ``Source.unused``; decoders report what
they drop from a sample by :func:`notice`. `data inspect`, the start of a run, its log and
``--json`` show both.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

_LOG = logging.getLogger(__name__)
_NAMED = 3  # names kept per kind

_noticed: ContextVar[list[str] | None] = ContextVar("noticed", default=None)


@dataclass
class _Kind:
    count: int = 0
    sampled: bool = False  # counted only over the decoded samples
    names: list[str] = field(default_factory=list)


class Unused:
    """Counts of unused content by kind, with the first names of each kind.

    Example:
        >>> unused = Unused()
        >>> unused.add(".heic files, which are not read", ["IMG_1.HEIC", "IMG_2.HEIC"])
        >>> unused.lines()
        ['.heic files, which are not read (2): IMG_1.HEIC, IMG_2.HEIC']
    """

    def __init__(self) -> None:
        self._kinds: dict[str, _Kind] = {}
        self._looked_at = 0

    def __bool__(self) -> bool:
        return bool(self._kinds)

    def add(self, what: str, names: Iterable[str] = (), *, count: int | None = None) -> None:
        """Add to the count of a kind.

        Args:
            what: the kind, in the plural: ``samples without an image``.
            names: file names, keys or columns.
            count: number of items; None: the number of names.
        """
        listed = list(names)
        more = len(listed) if count is None else count
        if more:
            self._count(_Kind(more, names=listed), what)

    def drop(self, what: str) -> None:
        """Remove a kind that is used after all."""
        self._kinds.pop(what, None)

    def looked(self, key: str, noticed: Iterable[str]) -> None:
        """Count a decoded sample and what its decoder reported."""
        self._looked_at += 1
        for what in noticed:
            self._count(_Kind(1, sampled=True, names=[key]), what)

    def update(self, other: Unused) -> None:
        """Add the counts of another instance."""
        self._looked_at += other._looked_at
        for what, kind in other._kinds.items():
            self._count(kind, what)

    def lines(self) -> list[str]:
        """One line per kind, the most frequent first."""
        return [self._line(what, kind) for what, kind in self._sorted()]

    def as_json(self) -> list[dict[str, Any]]:
        """Per kind: ``what``, ``count``, the ``first`` names; and ``looked_at``, the number of
        decoded samples, if only those were counted."""
        return [
            {
                "what": what,
                "count": kind.count,
                "first": kind.names,
                **({"looked_at": self._looked_at} if kind.sampled else {}),
            }
            for what, kind in self._sorted()
        ]

    def add_json(self, kinds: Iterable[dict[str, Any]]) -> None:
        """Add the :meth:`as_json` of another instance, except what decoders reported."""
        for kind in kinds:
            self._count(_Kind(kind["count"], names=list(kind["first"])), kind["what"])

    def warn(self, source: str) -> None:
        """Log a warning for each kind, for commands that keep no run directory."""
        for line in self.lines():
            _LOG.warning("%s: not used: %s", source, line)

    def _count(self, more: _Kind, what: str) -> None:
        kind = self._kinds.setdefault(what, _Kind(sampled=more.sampled))
        kind.count += more.count
        kind.names += more.names[: max(0, _NAMED - len(kind.names))]

    def _sorted(self) -> list[tuple[str, _Kind]]:
        return sorted(self._kinds.items(), key=lambda item: -item[1].count)

    def _line(self, what: str, kind: _Kind) -> str:
        of = f" of {self._looked_at} samples looked at" if kind.sampled else ""
        if not kind.names:
            return f"{what} ({kind.count}{of})"
        names = ", ".join(kind.names) + (" ..." if kind.count > len(kind.names) else "")
        return f"{what} ({kind.count}{of}): {names}"


def notice(what: str) -> None:
    """Report what a decoder drops from the current sample; costs nothing without a listener."""
    noticed = _noticed.get()
    if noticed is not None and what not in noticed:
        noticed.append(what)


def listening() -> bool:
    """Whether :func:`notice` has a listener, so that looking for dropped parts is worthwhile."""
    return _noticed.get() is not None


@contextmanager
def noticing() -> Iterator[list[str]]:
    """Collect the reports of :func:`notice` inside the block, without repeats."""
    found: list[str] = []
    token = _noticed.set(found)
    try:
        yield found
    finally:
        _noticed.reset(token)
