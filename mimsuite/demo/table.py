"""The table of results: one line for each way of measuring and each baseline."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING, Any

from mimsuite.cli.output import print_table
from mimsuite.text import duration

if TYPE_CHECKING:
    from rich.live import Live
    from rich.table import Table

FEW = 20  # labels a class: what the fine-tuning recipe takes
HEADER = ("balanced accuracy, %", "pretrained", "compared with", "has", "gain  [95 %]")

# Result -> (title, what the pretrained encoder is compared with).
SECTIONS = {
    "linear_probe": ("linear probe, frozen", ("random_init", "raw_input", "majority")),
    "knn": ("nearest neighbours, frozen", ("random_init", "raw_input", "majority")),
    "finetune": (f"fine-tuning, {FEW} labels a class", ("from_scratch",)),
    "finetune_all_labels": ("fine-tuning, all labels", ("from_scratch",)),
}
WORDS = {
    "from_scratch": "from scratch, equal steps",
    "random_init": "random encoder",
    "raw_input": "raw pixels",
    "majority": "majority class",
}
Row = tuple[str, str, str, str, str]


class ResultTable:
    """Fills line by line while it is measured on a terminal; elsewhere it is printed at the end.

    Attributes:
        is_live: whether it is on a terminal; nothing else should then be printed there.
    """

    def __init__(self) -> None:
        self.is_live = sys.stdout.isatty()
        self._results: dict[str, list[Row]] = {}
        self._running, self._begun = "", 0.0
        self._live: Live | None = None

    def __enter__(self) -> ResultTable:
        if self.is_live:
            from rich.console import Console
            from rich.live import Live

            console = Console(highlight=False)
            self._live = Live(get_renderable=self._table, console=console, refresh_per_second=2)
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._live is not None:
            self._running = ""
            self._live.stop()
        elif error is None:
            print()
            print_table(HEADER, self.rows())

    def begin(self, name: str) -> None:
        """A result is being measured."""
        self._running, self._begun = name, time.monotonic()

    def add(self, name: str, result: dict[str, Any]) -> None:
        """A result was measured."""
        self._results[name] = rows_of(name, result)

    def rows(self) -> list[Row]:
        """The lines, those without a result included."""
        return [row for name in SECTIONS for row in self._results.get(name, self._pending(name))]

    def _pending(self, name: str) -> list[Row]:
        title, baselines = SECTIONS[name]
        state = duration(time.monotonic() - self._begun) if name == self._running else ""
        return [
            ("" if number else title, "" if number else state, WORDS[baseline], "", "")
            for number, baseline in enumerate(baselines)
        ]

    def _table(self) -> Table:
        from rich.box import SIMPLE_HEAD
        from rich.table import Table

        table = Table(*HEADER, box=SIMPLE_HEAD, pad_edge=False)
        for row in self.rows():
            table.add_row(*row, style="" if row[3] else "dim")
        return table


def rows_of(name: str, result: dict[str, Any]) -> list[Row]:
    """The lines of a result."""
    title, baselines = SECTIONS[name]
    figures = result["balanced_accuracy"]
    ours = f"{100 * figures['pretrained']:.1f}"
    rows = []
    for baseline in baselines:
        interval = gain(result, baseline)
        low, high = (f"{100 * interval[end]:+.1f}" for end in ("low", "high"))
        gained = f"{100 * interval['difference']:+.1f}  [{low}, {high}]"
        rows.append((title, ours, WORDS[baseline], f"{100 * figures[baseline]:.1f}", gained))
        title = ours = ""
    return rows


def gain(result: dict[str, Any], baseline: str) -> dict[str, float]:
    """Gain in accuracy, paired by sample, with its 95 % bootstrap interval.

    The test split has equally many samples of each class, so balanced accuracy is the same.
    """
    import torch

    from mimsuite.evaluate.bootstrap import paired_interval

    def right(variant: str) -> torch.Tensor:  # (1 seed, samples)
        return torch.tensor([[int(c) for c in result["right"][variant]]])

    return paired_interval(right("pretrained"), right(baseline)).as_dict()
