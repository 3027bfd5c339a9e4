"""Warnings about long waits: what the process is waiting for, and how long already.

One thread watches all waits of the process, so that entering a wait costs about a microsecond and
warnings appear even while the main thread is in native code. Does not import torch.
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

FIRST_SECONDS = 10.0  # until the first warning; the interval then doubles
LONGEST_SECONDS = 300.0  # longest interval between warnings
_LOOK_SECONDS = 0.5  # interval at which the thread checks all waits


_waits: set[waiting] = set()
_watcher: threading.Thread | None = None


class waiting:  # noqa: N801  (used as a statement)
    """While the block runs, warn at growing intervals what it is waiting for.

    It is a class and not a generator to be cheap: every vote of a training step is inside one.

    Args:
        whom: what is waited for, or a function that returns it; no warning for an empty text.
        long: called once by the watching thread, at the first check after ``_LOOK_SECONDS``.
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
        _waits.discard(self)  # not in the set after a fork


def _start() -> None:
    global _watcher
    _watcher = threading.Thread(target=_watch, daemon=True, name="waits")
    _watcher.start()


def _watch() -> None:
    while True:
        time.sleep(_LOOK_SECONDS)
        now = time.monotonic()
        for wait in list(_waits):
            # A failing callback must not end the thread, which serves other waits too.
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
    """Reset the state in a forked child, which has no watching thread."""
    global _watcher
    _watcher = None
    _waits.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
