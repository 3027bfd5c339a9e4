"""Which faults of a network pass, and how often and how long one waits for that."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable
from typing import TypeVar

from mimsuite.errors import DataError, UserError
from mimsuite.waiting import waiting

TRIES = 8  # in a row that bring less than ENOUGH
ENOUGH = 64 << 10  # bytes
FIRST_WAIT = 0.25  # seconds; doubles with every try
LONGEST_WAIT = 30.0  # seconds
CONNECT_SECONDS = 15.0
STALL_SECONDS = 30.0  # without, or nearly without, a byte
SLOWEST = 1024  # bytes per second over STALL_SECONDS; less is a stall

_log = logging.getLogger(__name__)
# Waits must differ between processes, else all come back at once; nothing of training hangs on it.
_jitter = random.SystemRandom()

Result = TypeVar("Result")


class Transient(Exception):
    """A fault that may pass.

    Args:
        wait: seconds that the server asks for.
    """

    def __init__(self, message: str, wait: float | None = None) -> None:
        super().__init__(message)
        self.wait = wait


class NotThere(DataError):
    """The server says that there is no such object."""


class Denied(UserError):
    """The server refuses: wrong or missing credentials, or no right to read."""


class Patience:
    """Counts tries at one object and waits between them.

    Args:
        what: the object, for messages.
    """

    def __init__(self, what: object) -> None:
        self.what, self.tries, self._bytes = what, 0, 0

    def came(self, count: int) -> None:
        """Bytes came; when they are :data:`ENOUGH`, the count begins anew."""
        self._bytes += count
        if self._bytes >= ENOUGH:
            self.tries = 0

    def failed(self, fault: Transient) -> None:
        """Wait for the next try.

        Raises:
            DataError: that was the last one.
        """
        self.tries, self._bytes = self.tries + 1, 0
        if self.tries >= TRIES:
            raise DataError(
                f"{self.what}: {fault}, after {self.tries} tries; check the server and the "
                f"network; a training run goes on with --resume auto"
            ) from None
        wait = min(FIRST_WAIT * 2 ** (self.tries - 1), LONGEST_WAIT) * _jitter.uniform(0.5, 1.0)
        if fault.wait is not None:
            wait = max(wait, min(fault.wait, LONGEST_WAIT))
        if self.tries > 2:  # the first ones are daily life of a network
            _log.warning("%s: %s; trying again (%d of %d)", self.what, fault, self.tries + 1, TRIES)
        time.sleep(wait)


def retried(what: object, work: Callable[[], Result]) -> Result:
    """``work()``, again after every :class:`Transient`.

    Raises:
        DataError: it never went well.
    """
    patience = Patience(what)
    while True:
        try:
            with waiting(str(what)):
                return work()
        except Transient as fault:
            patience.failed(fault)
