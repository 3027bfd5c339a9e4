"""Stop signals: the first asks for a save at the next step, the second ends the process at once.

Torch-free, so that handlers are in place before the seconds that importing torch takes.
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
_ONE = 0.5  # seconds in which the same signal counts once

_installed: list[StopFlag] = []  # none or one, that of the process


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
        """Handle stop signals from now on, in place of a flag that did so before.

        In the main thread. To be undone by :func:`restore_handlers`, unless the process ends.
        """
        restore_handlers()
        numbers, arriving = os.pipe()
        os.set_blocking(arriving, False)
        wakeup = signal.set_wakeup_fd(arriving, warn_on_full_buffer=False)
        threading.Thread(target=_count, args=(numbers,), daemon=True, name=_THREAD).start()
        before = {number: signal.signal(number, self._handle) for number in _SIGNALS}

        def restore() -> None:
            for number, handler in before.items():
                # None: of a library that is not Python, which only that library can put back.
                signal.signal(number, signal.SIG_DFL if handler is None else handler)
            signal.set_wakeup_fd(wakeup)
            os.write(arriving, _END)  # forks may hold the pipe open: closing it is not enough
            os.close(arriving)

        self._restore = restore
        _installed.append(self)
        return self

    def ignore(self) -> None:
        """From now on: all is saved, and peers that are done too make srun end this process."""
        for number in _SIGNALS:
            if signal.getsignal(number) == self._handle:
                signal.signal(number, signal.SIG_IGN)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.signal is None:
            self.signal = number


def restore_handlers() -> None:
    """Let stop signals do what they did before a flag was installed; nothing if none was.

    For a process that goes on after a command, as a notebook does. One that is about to end keeps
    its handlers: a signal in its last moments must not change its exit code.
    """
    while _installed:
        _installed.pop()._restore()


def _leave_to_parent() -> None:
    """A fork that has not set its own handlers yet must not count for its parent."""
    if _installed:
        signal.set_wakeup_fd(-1)
        _installed.clear()


os.register_at_fork(after_in_child=_leave_to_parent)


def _count(numbers: int) -> None:
    """End the process at its second stop signal: no save, no cleaning up.

    In a thread, since Python's own handlers wait while the main thread is inside native code, and
    what is asked to stop twice may be a collective that waits for a lost peer.
    """
    asked, last, when = 0, 0, 0.0
    while (arrived := os.read(numbers, 1)) != _END:
        if arrived[0] not in _SIGNALS:
            continue
        # SLURM sends the same one twice at a time limit, by slurmd and through srun.
        asked += arrived[0] != last or time.monotonic() - when > _ONE
        last, when = arrived[0], time.monotonic()
        if asked == 2:
            os._exit(128 + arrived[0])
    os.close(numbers)
