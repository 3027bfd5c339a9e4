"""Pieces of remote shards that were fetched, kept in a temporary file that has no name.

Samples of a block are read in permuted order, so what is fetched ahead is used up only with the
block. A hundred megabytes for each lane would be much memory; on disk they are little, and the
system's page cache holds what fits.
"""

from __future__ import annotations

import logging
import os
import tempfile
import threading
from collections import OrderedDict
from functools import cache

from mimsuite.errors import UserError

WINDOW = 4 << 20  # bytes of a request
LIMIT = 2 << 30  # bytes of the file, of each process
_WASTED = 32  # windows fetched again before they were half used, until that is said

_log = logging.getLogger(__name__)
Key = tuple[int, int]  # (reader, number of the window)


class Windows:
    """The most recently used windows of all shards that a process reads.

    Args:
        limit: bytes of the file.
        size: bytes of a window.

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
        self._known: OrderedDict[Key, list[int]] = OrderedDict()  # slot, bytes of it that were used
        self._free: list[int] = []
        self._used = 0
        self._unused: set[Key] = set()  # evicted before they were half used
        self._wasted = 0
        self._lock = threading.Lock()

    def read(self, key: Key, size: int, offset: int) -> bytes | None:
        """Bytes of a window; None where it is not held."""
        with self._lock:
            entry = self._known.get(key)
            if entry is None:
                return None
            self._known.move_to_end(key)
            entry[1] += size
            return os.pread(self._file.fileno(), size, entry[0] * self.size + offset)

    def holds(self, key: Key) -> bool:
        """Whether a window can be read."""
        with self._lock:
            return key in self._known

    def keep(self, key: Key, data: bytes) -> None:
        """Hold a window, in the place of the one used longest ago.

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
        """Let go of a reader's windows."""
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
