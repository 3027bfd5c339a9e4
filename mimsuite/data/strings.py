"""Many strings in two arrays; a million names as Python objects would take 100 MB per worker."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np


class StringTable:
    """A read-only sequence of strings, held as UTF-8 bytes and offsets.

    Args:
        blob: uint8, all strings concatenated.
        ends: int64, the end of each string in ``blob``.
    """

    def __init__(self, blob: np.ndarray, ends: np.ndarray) -> None:
        self.blob, self.ends = blob, ends

    @classmethod
    def of(cls, strings: Iterable[str]) -> StringTable:
        # surrogateescape: file names need not be valid UTF-8.
        encoded = [string.encode("utf-8", "surrogateescape") for string in strings]
        ends = np.cumsum([len(item) for item in encoded], dtype=np.int64)
        return cls(np.frombuffer(b"".join(encoded), dtype=np.uint8), ends)

    def __len__(self) -> int:
        return len(self.ends)

    def __getitem__(self, index: int) -> str:
        if not 0 <= index < len(self.ends):
            raise IndexError(index)
        start = int(self.ends[index - 1]) if index else 0
        return self.blob[start : int(self.ends[index])].tobytes().decode("utf-8", "surrogateescape")

    def __iter__(self) -> Iterator[str]:
        return (self[index] for index in range(len(self)))
