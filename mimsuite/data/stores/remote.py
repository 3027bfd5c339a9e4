"""Remote shards: read in ranges of a few MiB, or from the shard cache if there is one."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

from mimsuite.data.stores.read_ahead import read_ahead
from mimsuite.data.stores.shard import OpenShard
from mimsuite.data.stores.shard_cache import ShardCache
from mimsuite.data.stores.transfer import Transfer, Version
from mimsuite.data.stores.url import Url
from mimsuite.data.stores.windows import Windows, windows
from mimsuite.waiting import waiting

_numbers = itertools.count()


@dataclass(frozen=True)
class RemoteShard:
    """A shard at a URL.

    Attributes:
        version: the version to read; any other is refused.
        sha256: the checksum in ``index.json``; None: unknown.
        cache: where whole shards are kept; None: only the parts in use are fetched.
    """

    url: Url
    version: Version
    sha256: str | None = None
    cache: ShardCache | None = None

    @property
    def name(self) -> str:
        return self.url.name

    @property
    def fetched(self) -> bool:
        return self.cache is None

    def __str__(self) -> str:
        return str(self.url)

    def open(self) -> OpenShard:
        """Start reading; see :class:`Shard`."""
        if self.cache is not None:
            return self.cache.open(self.url, self.version, self.sha256)
        return RemoteFile(self.url, self.version)


class RemoteFile:
    """Reads a remote shard by windows; each is fetched once while in use."""

    def __init__(self, url: Url, version: Version) -> None:
        self._transfer = Transfer(url, version)
        self._number = next(_numbers)
        self._begun: set[int] = set()  # windows that have been read from

    @property
    def size(self) -> int:
        return self._transfer.version.size

    def pread(self, size: int, offset: int) -> bytes:
        stop = min(offset + size, self.size)
        held, parts = windows(), []
        while offset < stop:
            number, start = divmod(offset, held.size)
            length = min(stop - offset, held.size - start)
            parts.append(self._window(held, number, length, start))
            offset += length
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _window(self, held: Windows, number: int, size: int, start: int) -> bytes:
        key = (self._number, number)
        data = held.read(key, size, start)
        if data is None:
            with waiting(str(self._transfer.url)):
                read_ahead().wait(key)
            data = held.read(key, size, start)
        if data is None:
            with waiting(str(self._transfer.url)):
                held.keep(key, b"".join(self._transfer.chunks(*self._range(held, number))))
            data = held.read(key, size, start)
            assert data is not None
        if number in self._begun:
            return data
        self._begun.add(number)
        # Only for sequential reading: scattered samples do not need the following window.
        first, stop = self._range(held, number + 1)
        if first < stop and held.holds((self._number, number - 1)):
            read_ahead().ask(self._transfer, (self._number, number + 1), first, stop, held)
        return data

    def _range(self, held: Windows, number: int) -> tuple[int, int]:
        first = number * held.size
        return first, min(first + held.size, self.size)

    def close(self) -> None:
        windows().forget(self._number)
