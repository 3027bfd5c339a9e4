"""The SHA-256 of a shard, taken on the way by whoever reads it from its beginning to its end."""

from __future__ import annotations

import hashlib

from mimsuite.data.stores.shard import OpenShard

_CHUNK = 1 << 20


class HashedFile:
    """An open shard that hashes what is read of it, and what was passed over before that."""

    def __init__(self, opened: OpenShard) -> None:
        self._opened = opened
        self._hash, self._hashed = hashlib.sha256(), 0  # bytes from the beginning

    @property
    def size(self) -> int:
        return self._opened.size

    def pread(self, size: int, offset: int) -> bytes:
        self._hash_to(offset)
        data = self._opened.pread(size, offset)
        new = self._hashed - offset
        if new < len(data):
            self._hash.update(memoryview(data)[new:])
            self._hashed = offset + len(data)
        return data

    def close(self) -> None:
        self._opened.close()

    def sha256(self) -> str:
        """Of the whole shard, hexadecimal; reads what nobody has read."""
        self._hash_to(self.size)
        return self._hash.hexdigest()

    def _hash_to(self, end: int) -> None:
        while self._hashed < end:
            data = self._opened.pread(min(_CHUNK, end - self._hashed), self._hashed)
            if not data:
                return
            self._hash.update(data)
            self._hashed += len(data)
