"""Stop signals: the first requests a save at the next step, the second ends the process at once.

Does not import torch, which takes seconds, so that handlers are installed before.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from types import FrameType

_SIGNALS = tuple(
    getattr(signal, name)
    for name in ("SIGTERM", "SIGINT", "SIGUSR1", "SIGUSR2")
    if hasattr(signal, name)
)

_THREAD = "stop signals"
_END = b"\0"  # no signal has this number
_ONE = 0.5  # seconds within which a repeated signal counts once
_installed: list[StopFlag] = []  # the process's flag, if one is installed


class StopFlag:
    """Set by a stop signal; read by the training loop once a step."""

    def __init__(self) -> None:
        self.signal: int | None = None
        self._restore: Callable[[], None] = lambda: None

    def __bool__(self) -> bool:
        return self.signal is not None

    @property
    def name(self) -> str:
        return "" if self.signal is None else signal.Signals(self.signal).name

    def install(self) -> StopFlag:
        """Start to handle stop signals; replaces a flag installed earlier.

        Call it in the main thread, and undo it by :func:`restore_handlers` unless the process ends.
        """
        restore_handlers()
        numbers, arriving = os.pipe()
        os.set_blocking(arriving, False)
        wakeup = signal.set_wakeup_fd(arriving, warn_on_full_buffer=False)
        threading.Thread(target=_count, args=(numbers,), daemon=True, name=_THREAD).start()
        before = {number: signal.signal(number, self._handle) for number in _SIGNALS}

        def restore() -> None:
            for number, handler in before.items():
                # None: a handler installed by native code, which Python cannot restore.
                signal.signal(number, signal.SIG_DFL if handler is None else handler)
            signal.set_wakeup_fd(wakeup)
            os.write(arriving, _END)  # closing is not enough: forks may hold the pipe open
            os.close(arriving)

        self._restore = restore
        _installed.append(self)
        return self

    def ignore(self) -> None:
        """Ignore stop signals: all is saved, and srun signals this process once its peers end."""
        for number in _SIGNALS:
            if signal.getsignal(number) == self._handle:
                signal.signal(number, signal.SIG_IGN)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.signal is None:
            self.signal = number


def restore_handlers() -> None:
    """Restore the handlers from before a flag was installed; does nothing without a flag.

    For processes that continue after a command, such as notebooks. A process that is about to end
    keeps its handlers, so that a late signal does not change its exit code.
    """
    while _installed:
        _installed.pop()._restore()


def _leave_to_parent() -> None:
    """In a fork: detach from the parent's pipe, so that the parent does not count its signals."""
    if _installed:
        signal.set_wakeup_fd(-1)
        _installed.clear()


os.register_at_fork(after_in_child=_leave_to_parent)


def _count(numbers: int) -> None:
    """End the process at its second stop signal, without save and clean-up.

    Runs in a thread: Python handlers do not run while the main thread is in native code, such as a
    collective that waits for a lost peer.
    """
    asked, last, when = 0, 0, 0.0
    while (arrived := os.read(numbers, 1)) != _END:
        if arrived[0] not in _SIGNALS:
            continue
        # At a time limit SLURM sends the same signal twice, by slurmd and through srun.
        asked += arrived[0] != last or time.monotonic() - when > _ONE
        last, when = arrived[0], time.monotonic()
        if asked == 2:
            os._exit(128 + arrived[0])
    os.close(numbers)
