"""A file read in place by seeking, because videos may be larger than memory."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import BinaryIO, Protocol

from mimsuite.errors import CorruptSample


@dataclass(frozen=True)
class LocalFile:
    """A stored sample that stays on disk; ``bytes(file)`` reads all of it.

    Attributes:
        path: absolute, so that no library mistakes a part of it for a protocol.
    """

    path: str

    def open(self) -> BinaryIO:
        """Open the file for reading; raises CorruptSample."""
        try:
            return open(self.path, "rb")
        except OSError as fault:
            raise CorruptSample("missing", fault.strerror or str(fault)) from None

    def __len__(self) -> int:
        """Size in bytes; 0 if the file does not exist."""
        try:
            return os.stat(self.path).st_size
        except OSError:
            return 0

    def __bytes__(self) -> bytes:
        with self.open() as file:
            return file.read()


class _Readable(Protocol):
    def pread(self, size: int, offset: int) -> bytes: ...


@dataclass(frozen=True)
class Stretch:
    """A stored sample within an open shard, of which only parts are read. Its checksum is not
    compared, so the sample must have checksums of its own.

    Attributes:
        file: the shard.
        offset, size: in bytes, where the sample lies in it.
    """

    file: _Readable
    offset: int
    size: int

    def __len__(self) -> int:
        return self.size

    def pread(self, size: int, offset: int) -> bytes:
        """``size`` bytes of the sample; fewer at its end. Raises CorruptSample."""
        try:
            return self.file.pread(min(size, self.size - offset), self.offset + offset)
        except OSError as fault:
            raise CorruptSample("missing", fault.strerror or str(fault)) from None


Stored = bytes | LocalFile


def opened(data: Stored) -> BinaryIO:
    """A binary file object over bytes or a file on disk."""
    return io.BytesIO(data) if isinstance(data, bytes) else data.open()


def reader(data: Stored | Stretch) -> Callable[[int, int], bytes]:
    """(size, offset) -> bytes: reads parts of a stored sample; raises CorruptSample."""
    if isinstance(data, Stretch):
        return data.pread
    file = opened(data)

    def read(size: int, offset: int) -> bytes:
        try:
            file.seek(offset)
            return file.read(size)
        except OSError as fault:
            raise CorruptSample("missing", fault.strerror or str(fault)) from None

    return read
