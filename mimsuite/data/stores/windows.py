"""Fetched pieces (windows) of remote shards, kept in an unnamed temporary file.

Samples of a block are read in permuted order, so its windows stay in use until the block ends. That
is about a hundred megabytes per lane: too much for memory, but little on disk, where the page cache
holds what fits.
"""

from __future__ import annotations

import logging
import os
import tempfile
import threading
from collections import OrderedDict
from functools import cache

from mimsuite.errors import UserError

WINDOW = 4 << 20  # bytes per request
LIMIT = 2 << 30  # bytes of the file, per process
_WASTED = 32  # warn after this many windows were fetched again although less than half used

_log = logging.getLogger(__name__)
Key = tuple[int, int]  # (reader, window number)


class Windows:
    """The most recently used windows of all shards that this process reads.

    Args:
        limit: size limit of the file in bytes.
        size: bytes per window.

    Raises:
        UserError: there is no folder for temporary files.
    """

    def __init__(self, limit: int, size: int) -> None:
        self.size = size
        try:
            self._file = tempfile.TemporaryFile(prefix="mimsuite-")  # noqa: SIM115
        except OSError as fault:
            raise UserError(
                f"cannot make a temporary file: {fault.strerror}: set TMPDIR to a folder"
            ) from None
        self._slots = max(2, limit // size)
        self._known: OrderedDict[Key, list[int]] = OrderedDict()  # key -> slot, bytes used
        self._free: list[int] = []
        self._used = 0
        self._unused: set[Key] = set()  # evicted before they were half used
        self._wasted = 0
        self._lock = threading.Lock()

    def read(self, key: Key, size: int, offset: int) -> bytes | None:
        """Read bytes of a window; None if it is not held."""
        with self._lock:
            entry = self._known.get(key)
            if entry is None:
                return None
            self._known.move_to_end(key)
            entry[1] += size
            return os.pread(self._file.fileno(), size, entry[0] * self.size + offset)

    def holds(self, key: Key) -> bool:
        """Whether a window is held."""
        with self._lock:
            return key in self._known

    def keep(self, key: Key, data: bytes) -> None:
        """Store a window; replaces the least recently used one when full.

        Raises:
            UserError: the disk is full.
        """
        with self._lock:
            if key in self._known:
                return
            slot = self._slot()
            try:
                os.pwrite(self._file.fileno(), data, slot * self.size)
            except OSError as fault:
                raise UserError(
                    f"cannot keep what was fetched in {tempfile.gettempdir()}: {fault.strerror}: "
                    f"set TMPDIR to a folder with {LIMIT >> 30} GiB for each loader worker, or "
                    f"data.cache"
                ) from None
            self._known[key] = [slot, 0]
            if key in self._unused:
                self._unused.discard(key)
                self._wasted += 1
                if self._wasted == _WASTED:
                    _log.warning(
                        "the blocks that this process reads at once exceed %d GiB, so parts of "
                        "shards are fetched more than once: set data.cache to a folder, or lower "
                        "data.block or data.lanes",
                        LIMIT >> 30,
                    )

    def forget(self, reader: int) -> None:
        """Drop a reader's windows."""
        with self._lock:
            for key in [key for key in self._known if key[0] == reader]:
                self._free.append(self._known.pop(key)[0])
            self._unused = {key for key in self._unused if key[0] != reader}

    def _slot(self) -> int:
        if self._free:
            return self._free.pop()
        if self._used < self._slots:
            self._used += 1
            return self._used - 1
        key, (slot, used) = self._known.popitem(last=False)
        if used < self.size // 2:
            self._unused.add(key)
        return slot


def windows() -> Windows:
    """The windows of this process."""
    return _of_process(os.getpid())


@cache
def _of_process(process: int) -> Windows:
    return Windows(LIMIT, WINDOW)
