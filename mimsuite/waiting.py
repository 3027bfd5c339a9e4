"""Nothing waits in silence: what takes long because of somebody else says for whom it waits.

One thread of the process watches all waits, so that entering one costs about a microsecond; it
also speaks while the main thread is inside native code. Torch-free.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType

_log = logging.getLogger(__name__)

FIRST_SECONDS = 10.0  # of a wait, until it is told; then at twice the time, up to
LONGEST_SECONDS = 300.0
_LOOK_SECONDS = 0.5  # between two looks of the thread


_waits: set[waiting] = set()
_watcher: threading.Thread | None = None


class waiting:  # noqa: N801  (used as a statement)
    """While the block lasts, say after a while, and again at growing intervals, whom it waits for.

    A class and not a generator: it stands around every vote of a training step.

    Args:
        whom: what is waited for, or a function that says it when it is asked; an empty text: there
            is nothing to say now.
        long: called once, by the watching thread, when the wait has lasted for a look.
    """

    __slots__ = ("begun", "long", "told", "whom")

    def __init__(
        self, whom: str | Callable[[], str], long: Callable[[], None] | None = None
    ) -> None:
        self.whom, self.long = whom, long
        self.begun, self.told = time.monotonic(), FIRST_SECONDS

    def __enter__(self) -> None:
        _waits.add(self)
        if _watcher is None:
            _start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        _waits.discard(self)  # gone already in a fork


def _start() -> None:
    global _watcher
    _watcher = threading.Thread(target=_watch, daemon=True, name="waits")
    _watcher.start()


def _watch() -> None:
    while True:
        time.sleep(_LOOK_SECONDS)
        now = time.monotonic()
        for wait in list(_waits):
            # What cannot be said must not end the thread: the next wait may be another's.
            with suppress(Exception):
                _look(wait, now - wait.begun)


def _look(wait: waiting, seconds: float) -> None:
    if wait.long is not None and seconds >= _LOOK_SECONDS:
        ask, wait.long = wait.long, None
        ask()
    if seconds < wait.told:
        return
    wait.told = seconds + min(max(seconds, FIRST_SECONDS), LONGEST_SECONDS)
    whom = wait.whom if isinstance(wait.whom, str) else wait.whom()
    if whom:
        _log.warning("waiting for %s (%.0f s)", whom, seconds)


def _forget() -> None:
    """A fork has neither the thread nor the waits."""
    global _watcher
    _watcher = None
    _waits.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
