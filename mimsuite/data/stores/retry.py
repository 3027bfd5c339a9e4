"""Retries: which network errors are transient, how many tries they get, and the waits between."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable
from typing import TypeVar

from mimsuite.errors import DataError, UserError
from mimsuite.waiting import waiting

TRIES = 8  # limit of successive tries that each bring less than ENOUGH
ENOUGH = 64 << 10  # bytes that count as progress
FIRST_WAIT = 0.25  # seconds; doubles with every try
LONGEST_WAIT = 30.0  # seconds
CONNECT_SECONDS = 15.0
STALL_SECONDS = 30.0  # a transfer this long below SLOWEST is stalled
SLOWEST = 1024  # bytes per second, averaged over STALL_SECONDS

_log = logging.getLogger(__name__)
# Unseeded: waits must differ between processes, or all retry at once. Training is not affected.
_jitter = random.SystemRandom()

Result = TypeVar("Result")


class Transient(Exception):
    """A transient error, worth a retry.

    Args:
        wait: seconds to wait, as requested by the server.
    """

    def __init__(self, message: str, wait: float | None = None) -> None:
        super().__init__(message)
        self.wait = wait


class NotThere(DataError):
    """The object does not exist on the server."""


class Unreachable(DataError):
    """The server or the network failed in all tries; a later start may succeed. Job scripts know it
    by its name in the run's FAILED file."""


class Denied(UserError):
    """Access denied: wrong or missing credentials, or no permission to read."""


class Patience:
    """Counts tries for one object and waits between them.

    Args:
        what: name of the object, for messages.
    """

    def __init__(self, what: object) -> None:
        self.what, self.tries, self._bytes = what, 0, 0

    def came(self, count: int) -> None:
        """Record received bytes; after :data:`ENOUGH` bytes the count of tries restarts."""
        self._bytes += count
        if self._bytes >= ENOUGH:
            self.tries = 0

    def failed(self, fault: Transient) -> None:
        """Wait for the next try.

        Raises:
            Unreachable: all tries are used up.
        """
        self.tries, self._bytes = self.tries + 1, 0
        if self.tries >= TRIES:
            raise Unreachable(
                f"{self.what}: {fault}, after {self.tries} tries; check the server and the "
                f"network; resume a training run with --resume auto"
            ) from None
        wait = min(FIRST_WAIT * 2 ** (self.tries - 1), LONGEST_WAIT) * _jitter.uniform(0.5, 1.0)
        if fault.wait is not None:
            wait = max(wait, min(fault.wait, LONGEST_WAIT))
        if self.tries > 2:  # the first failures are too common for a warning
            _log.warning("%s: %s; trying again (%d of %d)", self.what, fault, self.tries + 1, TRIES)
        time.sleep(wait)


def retried(what: object, work: Callable[[], Result]) -> Result:
    """Call ``work()``, again after every :class:`Transient`.

    Raises:
        Unreachable: all tries failed.
    """
    patience = Patience(what)
    while True:
        try:
            with waiting(str(what)):
                return work()
        except Transient as fault:
            patience.failed(fault)
