"""Read-ahead: windows are fetched while earlier samples are decoded."""

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
    """A thread that fetches windows; if a fetch fails, the reader tries again itself.

    The thread is a daemon, so the process can end while it waits for a server.
    """

    def __init__(self) -> None:
        self._jobs: queue.SimpleQueue[_Job] = queue.SimpleQueue()
        self._pending: dict[Key, threading.Event] = {}
        self._lock = threading.Lock()
        threading.Thread(target=self._work, daemon=True, name="read-ahead").start()

    def ask(self, transfer: Transfer, key: Key, start: int, stop: int, held: Windows) -> None:
        """Queue a window for fetching, unless it is held or queued already."""
        with self._lock:
            if key not in self._pending and not held.holds(key):
                self._pending[key] = threading.Event()
                self._jobs.put((transfer, key, start, stop, held))

    def wait(self, key: Key) -> None:
        """Wait until a queued window is held or its fetch has failed."""
        with self._lock:
            done = self._pending.get(key)
        if done is not None:
            done.wait()

    def _work(self) -> None:
        while True:
            transfer, key, start, stop, held = self._jobs.get()
            # The reader that needs the window gets the same error and reports it.
            with suppress(Exception):
                held.keep(key, transfer.once(start, stop))
            with self._lock:
                self._pending.pop(key).set()


def read_ahead() -> ReadAhead:
    """The read-ahead thread of this process."""
    return _of_process(os.getpid())


@cache
def _of_process(process: int) -> ReadAhead:
    return ReadAhead()
