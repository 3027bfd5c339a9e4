"""Nothing waits in silence: what takes long because of somebody else says for whom it waits.

One thread of the process watches all waits, so that entering one costs about a microsecond; it
also speaks while the main thread is inside native code. Torch-free.
"""

from __future__ import annotations

import itertools
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

_log = logging.getLogger(__name__)

FIRST_SECONDS = 10.0  # of a wait, until it is told; then at twice the time, up to
LONGEST_SECONDS = 300.0
_LOOK_SECONDS = 0.5  # between two looks of the thread


@dataclass
class Wait:
    """One wait under way.

    Attributes:
        whom: what is waited for, or a function that says it when it is asked; an empty text: there
            is nothing to say now.
        begun: on the monotonic clock.
        told: seconds after which it is told next.
        long: called once, by the watching thread, when the wait has lasted for some looks.
    """

    whom: str | Callable[[], str]
    long: Callable[[], None] | None = None
    begun: float = field(default_factory=time.monotonic)
    told: float = field(default_factory=lambda: FIRST_SECONDS)


_waits: dict[int, Wait] = {}
_numbers = itertools.count()
_watcher: threading.Thread | None = None


@contextmanager
def waiting(
    whom: str | Callable[[], str], long: Callable[[], None] | None = None
) -> Iterator[None]:
    """While the block lasts, say after a while, and again at growing intervals, whom it waits for.

    Args:
        whom, long: see :class:`Wait`.
    """
    number = next(_numbers)
    _waits[number] = Wait(whom, long)
    if _watcher is None:
        _start()
    try:
        yield
    finally:
        _waits.pop(number, None)  # gone already in a fork


def _start() -> None:
    global _watcher
    _watcher = threading.Thread(target=_watch, daemon=True, name="waits")
    _watcher.start()


def _watch() -> None:
    while True:
        time.sleep(_LOOK_SECONDS)
        now = time.monotonic()
        for wait in list(_waits.values()):
            # What cannot be said must not end the thread: the next wait may be another's.
            with suppress(Exception):
                _look(wait, now - wait.begun)


def _look(wait: Wait, seconds: float) -> None:
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
