"""The progress line: live on a terminal, plain lines elsewhere, both on stderr."""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Callable
from types import TracebackType

from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from mimsuite.console import say, stderr
from mimsuite.text import duration, memory, number, steady

_WINDOW = 20  # updates over which the speed behind the ETA is measured
_BAR = 24  # columns, where the terminal has them to spare


def progress(
    total_steps: int,
    start: int = 0,
    *,
    every: int = 1,
    quiet: bool = False,
    log: Callable[[str], None] | None = None,
) -> Progress:
    """A context manager that shows training from step ``start`` to ``total_steps``.

    Args:
        every: steps from one plain line to the next; the last step always has one.
        quiet: show nothing.
        log: takes the plain lines too, on a terminal or not: the run's log.

    Example:
        >>> with progress(1000) as line:
        ...     line.update(20, loss=0.81, lr=1e-4, grad_norm=0.5, samples_per_second=3000,
        ...                 data_wait=0.02, memory_mb=740)
    """
    return Progress(total_steps, start, every, quiet, log)


class Progress:
    """Made by :func:`progress`."""

    def __init__(
        self,
        total_steps: int,
        start: int,
        every: int,
        quiet: bool,
        log: Callable[[str], None] | None,
    ) -> None:
        self.total, self.step, self.every, self.quiet = total_steps, start, every, quiet
        self._log = log
        self._fields: list[tuple[str, str]] = []
        self._history: deque[tuple[float, int]] = deque(maxlen=_WINDOW)
        self._printed = start
        self._live: Live | None = None

    def __enter__(self) -> Progress:
        self._history.append((time.monotonic(), self.step))
        console = stderr()
        if not self.quiet and console.is_terminal and not console.is_dumb_terminal:
            # Where stdout goes to a file or pipe, rich must not send it to stderr instead.
            self._live = Live(
                get_renderable=self._line,
                console=console,
                redirect_stdout=sys.stdout.isatty(),
            )
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def update(
        self,
        step: int,
        *,
        loss: float,
        lr: float,
        grad_norm: float,
        samples_per_second: float,
        data_wait: float,
        memory_mb: float,
        worker_memory_mb: float | None = None,
        note: str = "",
    ) -> None:
        """Show the state after ``step`` optimizer steps.

        Args:
            data_wait: share of the time spent waiting for data, 0 to 1.
            memory_mb: peak memory of the device in 10^6 bytes; 0 = not known.
            worker_memory_mb: what the loader's workers hold together; None: there are none.
            note: what people should see at once.
        """
        if step < self.step:  # the run went back to a checkpoint
            self._history.clear()
        self.step = step
        self._history.append((time.monotonic(), step))
        self._fields = [
            ("loss", steady(loss)),
            ("lr", f"{lr:.2e}"),
            ("grad", steady(grad_norm, 3)),
            ("", f"{number(samples_per_second, 3)} samples/s"),
            ("wait", f"{100 * data_wait:.0f}%"),
            ("mem", memory(memory_mb) if memory_mb else "-"),
        ]
        if note:
            self._fields.insert(1, ("", note))
        if worker_memory_mb is not None:
            self._fields.append(("loader", memory(worker_memory_mb)))
        if abs(step - self._printed) >= self.every or step >= self.total:
            self._printed = step
            if self._live is None and not self.quiet:
                say(self.text())
            if self._log is not None:
                self._log(self.text())

    def eta(self) -> float:
        """Seconds to the last step at the recent speed; infinite before the first update."""
        (first, start), (last, step) = self._history[0], self._history[-1]
        if step <= start:
            return float("inf")
        left = (self.total - step) * (last - first) / (step - start)
        return max(0.0, left - (time.monotonic() - last)) if self._live else left

    def text(self, separator: str = "  ", without: int = 0) -> str:
        """Progress line as text, dropping the last ``without`` fields."""
        shown = self._fields[: len(self._fields) - without]
        fields = [("step", f"{self.step}/{self.total}"), *shown]
        fields.append(("eta", duration(self.eta())))
        return separator.join(f"{label} {value}".strip() for label, value in fields)

    def _line(self) -> Table | Text:
        """The live line, made when the screen is redrawn: a bar where there is room for it."""
        text, width = self.text(), stderr().width
        for without in range(len(self._fields) + 1):
            if len(text) <= width:
                break
            text = self.text(" ", without).replace(" samples/s", "/s").replace("step ", "")
        if len(text) + 10 > width:
            return Text(text, no_wrap=True, overflow="ellipsis")
        table = Table.grid(padding=(0, 1))
        bar = ProgressBar(max(self.total, 1), self.step, width=min(_BAR, width - len(text) - 1))
        table.add_row(bar, text)
        return table
