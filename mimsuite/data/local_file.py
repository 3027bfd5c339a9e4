"""A file that is read in place, by seeking, and not as bytes: videos may be larger than memory."""

from __future__ import annotations

import io
import os
from dataclasses import dataclass
from typing import BinaryIO

from mimsuite.errors import CorruptSample


@dataclass(frozen=True)
class LocalFile:
    """A stored sample that stays where it is; ``bytes`` of it is the whole file.

    Attributes:
        path: absolute, so that no library takes a part of it for a protocol.
    """

    path: str

    def open(self) -> BinaryIO:
        """The file, for reading; raises CorruptSample."""
        try:
            return open(self.path, "rb")
        except OSError as fault:
            raise CorruptSample("missing", fault.strerror or str(fault)) from None

    def __len__(self) -> int:
        """Its size in bytes; 0 where it is not there."""
        try:
            return os.stat(self.path).st_size
        except OSError:
            return 0

    def __bytes__(self) -> bytes:
        with self.open() as file:
            return file.read()


Stored = bytes | LocalFile


def opened(data: Stored) -> BinaryIO:
    """What reads and seeks in bytes, or in a file."""
    return io.BytesIO(data) if isinstance(data, bytes) else data.open()
