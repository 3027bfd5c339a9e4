"""Stop signals: the first asks for a save at the next step, the second ends the process at once.

Torch-free, so that handlers are in place before the seconds that importing torch takes.
"""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType

_SIGNALS = tuple(
    getattr(signal, name)
    for name in ("SIGTERM", "SIGINT", "SIGUSR1", "SIGUSR2")
    if hasattr(signal, name)
)


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

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.signal is None:
            self.signal = number


def _count(numbers: int) -> None:
    """End the process at its second stop signal: no save, no cleaning up.

    In a thread, since Python's own handlers wait while the main thread is inside native code, and
    what is asked to stop twice may be a collective that waits for a lost peer.
    """
    asked = 0
    while arrived := os.read(numbers, 1):
        asked += arrived[0] in _SIGNALS
        if asked == 2:
            os._exit(128 + arrived[0])
