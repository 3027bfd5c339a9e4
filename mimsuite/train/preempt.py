"""Stop signals: the first asks for a save at the next step, the second ends the process at once.

Torch-free, so that handlers are in place before the seconds that importing torch takes.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from types import FrameType

_SIGNALS = tuple(
    getattr(signal, name)
    for name in ("SIGTERM", "SIGINT", "SIGUSR1", "SIGUSR2")
    if hasattr(signal, name)
)

_ONE = 0.5  # seconds in which the same signal counts once


class StopFlag:
    """Set by a stop signal; read by the training loop once a step."""

    def __init__(self) -> None:
        self.signal: int | None = None

    def __bool__(self) -> bool:
        return self.signal is not None

    @property
    def name(self) -> str:
        return "" if self.signal is None else signal.Signals(self.signal).name

    def install(self) -> StopFlag:
        """Handle stop signals from now on; in the main thread, once in a process."""
        numbers, arriving = os.pipe()
        os.set_blocking(arriving, False)
        signal.set_wakeup_fd(arriving, warn_on_full_buffer=False)
        # A fork that has not set its own handlers yet must not count for this process.
        os.register_at_fork(after_in_child=lambda: signal.set_wakeup_fd(-1))
        threading.Thread(target=_count, args=(numbers,), daemon=True).start()
        for number in _SIGNALS:
            signal.signal(number, self._handle)
        return self

    def ignore(self) -> None:
        """From now on: all is saved, and peers that are done too make srun end this process."""
        for number in _SIGNALS:
            if signal.getsignal(number) == self._handle:
                signal.signal(number, signal.SIG_IGN)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.signal is None:
            self.signal = number


def _count(numbers: int) -> None:
    """End the process at its second stop signal: no save, no cleaning up.

    In a thread, since Python's own handlers wait while the main thread is inside native code, and
    what is asked to stop twice may be a collective that waits for a lost peer.
    """
    asked, last, when = 0, 0, 0.0
    while arrived := os.read(numbers, 1):
        if arrived[0] not in _SIGNALS:
            continue
        # SLURM sends the same one twice at a time limit, by slurmd and through srun.
        asked += arrived[0] != last or time.monotonic() - when > _ONE
        last, when = arrived[0], time.monotonic()
        if asked == 2:
            os._exit(128 + arrived[0])
