"""A file read in place by seeking, because videos may be larger than memory."""

from __future__ import annotations

import io
import os
from dataclasses import dataclass
from typing import BinaryIO

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


Stored = bytes | LocalFile


def opened(data: Stored) -> BinaryIO:
    """A binary file object over bytes or a file on disk."""
    return io.BytesIO(data) if isinstance(data, bytes) else data.open()
