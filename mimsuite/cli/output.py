"""What commands print: answers on stdout, as JSON for machines; notes and errors on stderr.

This needs nothing else of the suite, so that an error can be told whatever failed to import.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Sequence
from typing import Any


def say(text: str, label: str = "", style: str = "") -> None:
    """A line on stderr for people; further lines of ``text`` are indented under the first."""
    from rich.console import Console
    from rich.text import Text

    console = Console(stderr=True, highlight=False)
    first, *others = text.splitlines() or [""]
    # Text, not markup: a file name in brackets is no style. Soft wrap: a line stays a line.
    console.print(Text.assemble((label, style), printable(first)), soft_wrap=True)
    for line in others:
        console.print(Text("  " + printable(line.strip())), soft_wrap=True)


def warn(text: str) -> None:
    """A warning on stderr."""
    say(text, "warning: ", "bold yellow")


def error(text: str) -> None:
    """An error on stderr."""
    say(text, "error: ", "bold red")


class WarningLog(logging.Handler):
    """What the suite's modules log, as warnings; no line of a library of others."""

    def emit(self, record: logging.LogRecord) -> None:
        warn(record.getMessage())


def printable(text: str) -> str:
    """The text with control characters and marks that reorder it spelled out."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def print_json(value: Any) -> None:
    """One JSON value on stdout."""
    print(json.dumps(value, indent=2, ensure_ascii=False))


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table on stdout: fitted to a terminal, otherwise one line per row and nothing cut off."""
    cells = [[printable(cell) for cell in row] for row in rows]
    if sys.stdout.isatty():
        _fitted(columns, cells)
        return
    widths = [max(map(len, column)) for column in zip(columns, *cells, strict=True)]
    for row in [columns, *cells]:
        print("  ".join(map(str.ljust, row, widths)).rstrip())


def _fitted(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for index, column in enumerate(columns):
        # The first column is what one copies into the next command.
        table.add_column(column, no_wrap=index == 0, overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))
    Console(highlight=False).print(table)
