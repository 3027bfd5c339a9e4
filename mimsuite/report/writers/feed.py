"""A thread that feeds one writer, so that a slow, hanging or failing tracker costs no step."""

from __future__ import annotations

import queue
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress

from mimsuite.report.writers.base import Writer

_WAITING = 1000  # points that a slow tracker may be behind
_PAUSE_SECONDS = 60.0  # after a failure, until the next try

Task = Callable[[Writer], None]


class Feed:
    """Passes tasks on to a writer, in order.

    Args:
        name: of the writer, as the recipe has it.
        start: makes the writer; called in the thread.

    Attributes:
        notes: lines for people, to be said by the thread that trains.
        lost: points that were not written.
    """

    def __init__(self, name: str, start: Callable[[], Writer]) -> None:
        self.name, self._start = name, start
        self.notes: deque[str] = deque()
        self.lost = 0
        self._said: set[str] = set()
        self._paused_until = 0.0
        self._tasks: queue.Queue[Task | None] = queue.Queue(_WAITING)
        self._thread = threading.Thread(target=self._run, name=f"log-{name}", daemon=True)
        self._thread.start()

    def put(self, task: Task) -> None:
        """Queue a task; drop it where the tracker is too far behind. Never waits."""
        try:
            self._tasks.put_nowait(task)
        except queue.Full:
            self.lost += 1
            self._say(f"does not keep up with {_WAITING} points waiting: the next are dropped")

    def close(self, deadline: float) -> None:
        """Wait for what is queued, until ``deadline`` of ``time.monotonic`` at the latest."""
        with suppress(queue.Full):
            self._tasks.put(None, timeout=max(0.0, deadline - time.monotonic()))
        self._thread.join(max(0.0, deadline - time.monotonic()))
        if self._thread.is_alive():
            self.lost += self._tasks.qsize()
            self._say("does not answer: the run ends without it")
        if self.lost:
            self._say(f"{self.lost} points were not written; metrics.jsonl has all of them")

    def _run(self) -> None:
        try:
            writer = self._start()
        except (Exception, SystemExit) as fault:
            self._say(f"cannot be started ({_text(fault)}): the run continues without it")
            while self._tasks.get() is not None:
                self.lost += 1
            return
        while (task := self._tasks.get()) is not None:
            self._do(task, writer)
        try:
            writer.close()
        except (Exception, SystemExit) as fault:
            self._say(f"cannot be closed ({_text(fault)})")

    def _do(self, task: Task, writer: Writer) -> None:
        if time.monotonic() < self._paused_until:
            self.lost += 1
            return
        try:
            task(writer)
        except (Exception, SystemExit) as fault:
            self.lost += 1
            self._paused_until = time.monotonic() + _PAUSE_SECONDS
            if "failed" not in self._said:
                self._said.add("failed")
                self._say(f"failed ({_text(fault)}): tried again every {_PAUSE_SECONDS:.0f} s")

    def _say(self, text: str) -> None:
        """Each line once."""
        if text not in self._said:
            self._said.add(text)
            self.notes.append(f"log.writers: {self.name} {text}")


def _text(fault: BaseException) -> str:
    """A fault in one line."""
    line = next((line.strip() for line in str(fault).splitlines() if line.strip()), "")
    return f"{type(fault).__name__}: {line}".rstrip(": ")
