"""Windows that are fetched while the samples before them are decoded."""

from __future__ import annotations

import os
import queue
import threading
from contextlib import suppress
from functools import cache

from mimsuite.data.stores.transfer import Transfer
from mimsuite.data.stores.windows import Key, Windows

_Job = tuple[Transfer, Key, int, int, Windows]


class ReadAhead:
    """A thread that fetches windows; one that cannot be fetched is left to the reader.

    The thread is a daemon: a process may end while it waits for a server.
    """

    def __init__(self) -> None:
        self._jobs: queue.SimpleQueue[_Job] = queue.SimpleQueue()
        self._pending: dict[Key, threading.Event] = {}
        self._lock = threading.Lock()
        threading.Thread(target=self._work, daemon=True, name="read-ahead").start()

    def ask(self, transfer: Transfer, key: Key, start: int, stop: int, held: Windows) -> None:
        """Fetch a window later, unless it is held or asked for already."""
        with self._lock:
            if key not in self._pending and not held.holds(key):
                self._pending[key] = threading.Event()
                self._jobs.put((transfer, key, start, stop, held))

    def wait(self, key: Key) -> None:
        """Until a window that was asked for is held, or could not be fetched."""
        with self._lock:
            done = self._pending.get(key)
        if done is not None:
            done.wait()

    def _work(self) -> None:
        while True:
            transfer, key, start, stop, held = self._jobs.get()
            # Whoever needs the window meets the fault again, and tells it.
            with suppress(Exception):
                held.keep(key, transfer.once(start, stop))
            with self._lock:
                self._pending.pop(key).set()


def read_ahead() -> ReadAhead:
    """The one of this process."""
    return _of_process(os.getpid())


@cache
def _of_process(process: int) -> ReadAhead:
    return ReadAhead()
