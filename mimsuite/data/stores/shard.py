"""What a reader needs of a shard, wherever it lies."""

from __future__ import annotations

from typing import Protocol


class OpenShard(Protocol):
    """A shard that is being read, in any order."""

    @property
    def size(self) -> int:
        """Bytes of the shard."""

    def pread(self, size: int, offset: int) -> bytes:
        """``size`` bytes from ``offset`` on; fewer only at the end.

        Raises:
            OSError: a local file cannot be read.
            DataError: a remote one cannot, after all tries, or it changed.
        """

    def close(self) -> None:
        """Give back what is held; the shard may be opened again."""


class Shard(Protocol):
    """A shard that can be opened in any process: picklable, and holds nothing open."""

    @property
    def name(self) -> str:
        """Its file name."""

    @property
    def fetched(self) -> bool:
        """Whether it is read in pieces that the reading process fetches and keeps."""

    def open(self) -> OpenShard:
        """Start reading.

        Raises:
            DataError, UserError: it is not there, or may not be read.
        """
