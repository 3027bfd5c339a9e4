"""Things made ahead of their use by a thread of this process."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

Thing = TypeVar("Thing")


class Ahead(Generic[Thing]):
    """Calls ``make`` in a thread, so that some results are always ready.

    Args:
        make: called again and again, by the thread alone.
        most: results that wait to be taken.
    """

    def __init__(self, make: Callable[[], Thing], most: int) -> None:
        self._make, self._most = make, most
        self._ready: deque[Thing] = deque()
        self._fault: BaseException | None = None
        self._closed = False
        self._changed = threading.Condition()
        # A daemon: Python would wait for others before it closes what is open.
        self._thread = threading.Thread(target=self._work, daemon=True, name="feed")
        self._thread.start()

    def take(self) -> Thing:
        """The next result; waits for it. Raises what ``make`` raised in its place."""
        with self._changed:
            self._changed.wait_for(lambda: self._ready or self._fault is not None)
            if not self._ready:
                assert self._fault is not None
                raise self._fault
            self._changed.notify_all()
            return self._ready.popleft()

    def close(self, seconds: float) -> bool:
        """End the thread, after the call of ``make`` that it is in.

        Returns:
            False where that call has not returned after so many seconds.
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
        except BaseException as fault:  # whoever takes raises it
            with self._changed:
                self._fault = fault
                self._changed.notify_all()

    def _has_room(self) -> bool:
        """Wait for room; False: closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or len(self._ready) < self._most)
            return not self._closed
