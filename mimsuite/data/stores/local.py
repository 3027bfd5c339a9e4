"""Local shards."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from mimsuite.errors import DataError


class LocalFile:
    """An open file; owns its descriptor."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor

    @property
    def size(self) -> int:
        return os.fstat(self.descriptor).st_size

    @property
    def unlinked(self) -> bool:
        """Whether it has no name any more, so that closing it frees its space."""
        return os.fstat(self.descriptor).st_nlink == 0

    def pread(self, size: int, offset: int) -> bytes:
        return os.pread(self.descriptor, size, offset)

    def close(self) -> None:
        os.close(self.descriptor)


@dataclass(frozen=True, slots=True)
class LocalShard:
    """A shard at a local path."""

    path: Path

    @property
    def fetched(self) -> bool:
        return False

    @property
    def name(self) -> str:
        return self.path.name

    def __str__(self) -> str:
        return str(self.path)

    def open(self) -> LocalFile:
        """Open the file.

        Raises:
            DataError: it cannot be opened.
        """
        try:
            return LocalFile(os.open(self.path, os.O_RDONLY))
        except OSError as fault:
            raise DataError(f"cannot read shard {self.path}: {fault.strerror}") from None
