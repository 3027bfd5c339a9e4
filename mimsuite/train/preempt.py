"""Stop signals: the first asks for a save at the next step, the second ends the process at once.

Torch-free, so that handlers are in place before the seconds that importing torch takes.
"""

from __future__ import annotations

import os
import signal
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
        for number in _SIGNALS:
            signal.signal(number, self._handle)
        return self

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.signal is not None:
            os._exit(128 + number)  # asked twice: no save, no cleaning up
        self.signal = number
