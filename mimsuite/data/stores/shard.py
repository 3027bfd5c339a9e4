"""The interface of a shard, local or remote."""

from __future__ import annotations

from typing import Protocol


class OpenShard(Protocol):
    """A shard opened for random access."""

    @property
    def size(self) -> int:
        """Size of the shard in bytes."""

    def pread(self, size: int, offset: int) -> bytes:
        """Read ``size`` bytes at ``offset``; fewer only at the end of the shard.

        Raises:
            OSError: a local file cannot be read.
            DataError: a remote shard cannot be read after all tries, or has changed.
        """

    def close(self) -> None:
        """Release all resources; the shard may be opened again."""


class Shard(Protocol):
    """A shard that any process can open: picklable, without open resources."""

    @property
    def name(self) -> str:
        """The shard's file name."""

    @property
    def fetched(self) -> bool:
        """Whether the reading process fetches the shard in pieces and keeps them."""

    def open(self) -> OpenShard:
        """Start reading.

        Raises:
            DataError, UserError: the shard does not exist, or access is denied.
        """
