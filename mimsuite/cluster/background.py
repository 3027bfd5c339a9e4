"""A thread that runs queued calls in order."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Any, TypeVar

T = TypeVar("T")


class Background:
    """A daemon thread. Unlike an executor of the standard library, it does not delay process exit,
    because a call that waits for a lost rank may take minutes.

    Args:
        name: name of the thread.
        nice: added to its niceness, where the system has one for each thread.
    """

    def __init__(self, name: str, *, nice: int = 0) -> None:
        self._nice = nice
        self._calls: SimpleQueue[tuple[Future[Any], Callable[[], Any]]] = SimpleQueue()
        threading.Thread(target=self._work, daemon=True, name=name).start()

    def do(self, call: Callable[[], T]) -> Future[T]:
        """Queue a call; the future gets its result or exception."""
        future: Future[T] = Future()
        self._calls.put((future, call))
        return future

    def _work(self) -> None:
        if self._nice and sys.platform == "linux":  # elsewhere it is the process's
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), self._nice)
        while True:
            future, call = self._calls.get()
            try:
                future.set_result(call())
            except BaseException as error:
                future.set_exception(error)
            del future, call  # what they hold would be held until the next call
