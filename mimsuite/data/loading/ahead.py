"""Prefetching: a thread computes results before they are needed."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

Thing = TypeVar("Thing")


class Ahead(Generic[Thing]):
    """Calls ``make`` in a thread and keeps a few results ready.

    Args:
        make: called repeatedly, only by the thread.
        most: results kept ready.
    """

    def __init__(self, make: Callable[[], Thing], most: int) -> None:
        self._make, self._most = make, most
        self._ready: deque[Thing] = deque()
        self._fault: BaseException | None = None
        self._closed = False
        self._changed = threading.Condition()
        # A daemon thread: at exit, Python would join any other before it runs `atexit` functions.
        self._thread = threading.Thread(target=self._work, daemon=True, name="feed")
        self._thread.start()

    def take(self) -> Thing:
        """Wait for the next result and return it; re-raises an exception of ``make``."""
        with self._changed:
            self._changed.wait_for(lambda: self._ready or self._fault is not None)
            if not self._ready:
                assert self._fault is not None
                raise self._fault
            self._changed.notify_all()
            return self._ready.popleft()

    def close(self, seconds: float) -> bool:
        """Stop the thread once its current call of ``make`` returns.

        Returns:
            Whether the thread ended within ``seconds``.
        """
        with self._changed:
            self._closed = True
            self._ready.clear()
            self._changed.notify_all()
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def _work(self) -> None:
        try:
            while self._has_room():
                made = self._make()
                with self._changed:
                    self._ready.append(made)
                    self._changed.notify_all()
        except BaseException as fault:  # raised again by `take`
            with self._changed:
                self._fault = fault
                self._changed.notify_all()

    def _has_room(self) -> bool:
        """Wait until fewer than ``most`` results are ready; False once closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or len(self._ready) < self._most)
            return not self._closed
