"""Progress of a command: a bar with the time left on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from mimsuite.cli import output
from mimsuite.text import duration

LINE_SECONDS = 10.0  # time between two lines if stderr is not a terminal


@contextmanager
def progress_of(verb: str) -> Iterator[Callable[[int, int], None]]:
    """``with progress_of("packing") as progress: progress(done, total)``; on stderr.

    A total of 0 means that it is not known.
    """
    from rich.console import Console

    console = Console(stderr=True)
    if not console.is_terminal:
        yield _Lines(verb)
        return
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    with Progress(
        TextColumn(verb),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=console,
        transient=True,
    ) as bar:
        task = bar.add_task(verb, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total or None)


class _Lines:
    """Prints a line every ``LINE_SECONDS``, so a short command prints none."""

    def __init__(self, verb: str) -> None:
        self._verb = verb
        self._begun = self._said = time.monotonic()
        self._first: int | None = None

    def __call__(self, done: int, total: int) -> None:
        now = time.monotonic()
        if self._first is None:
            self._first = done  # already done before a resumed run
        if now - self._said < LINE_SECONDS:
            return
        self._said = now
        made = done - self._first
        line = f"{self._verb}: {done}"
        if total:
            line += f" of {total}"
        if total and made:
            line += f", {duration((total - done) * (now - self._begun) / made)} left"
        output.say(line)
