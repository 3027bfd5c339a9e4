"""Output of commands: results on stdout, as tables or JSON; notes and errors on stderr.

This module imports nothing else of the suite, so it can report an error of any import.
"""

from __future__ import annotations

import json
import logging
import shutil
import sys
from collections.abc import Sequence
from typing import Any

_NARROWEST, _WIDEST = 12, 44  # width in characters of a truncated column


def say(text: str, label: str = "", style: str = "") -> None:
    """Print a note on stderr; further lines of ``text`` are indented under the first."""
    from rich.console import Console
    from rich.text import Text

    console = Console(stderr=True, highlight=False)
    first, *others = text.splitlines() or [""]
    # Text, not markup: brackets in file names are no style. Soft wrap keeps a line on one line.
    console.print(Text.assemble((label, style), printable(first)), soft_wrap=True)
    for line in others:
        console.print(Text("  " + printable(line.strip())), soft_wrap=True)


def warn(text: str) -> None:
    """Print a warning on stderr."""
    say(text, "warning: ", "bold yellow")


def error(text: str) -> None:
    """Print an error on stderr."""
    say(text, "error: ", "bold red")


class WarningLog(logging.Handler):
    """Forward mimsuite log records to stderr as warnings; other libraries' records are dropped."""

    def emit(self, record: logging.LogRecord) -> None:
        warn(record.getMessage())


def printable(text: str) -> str:
    """The text with control and bidirectional characters escaped."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def print_json(value: Any) -> None:
    """Print one JSON value on stdout."""
    print(json.dumps(value, indent=2, ensure_ascii=False))


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table on stdout: fitted to a terminal, otherwise one full line per row."""
    cells = [[printable(cell) for cell in row] for row in rows]
    if sys.stdout.isatty():
        _fitted(columns, cells)
        return
    widths = [max(map(len, column)) for column in zip(columns, *cells, strict=True)]
    for row in [columns, *cells]:
        print("  ".join(map(str.ljust, row, widths)).rstrip())


def print_list(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table on stdout, one line per row; a terminal gets only the left columns that fit.

    Faster than :func:`print_table` for many rows.
    """
    if not sys.stdout.isatty():
        print_table(columns, rows)
        return
    cells = [[printable(cell) for cell in row] for row in [columns, *rows]]
    left = shutil.get_terminal_size().columns
    widths: list[int] = []
    for column in zip(*cells, strict=True):
        # Never truncate the first column: users copy it into the next command.
        wanted = min(max(map(len, column)), _WIDEST if widths else left)
        width = min(wanted, left)
        if widths and width < min(wanted, _NARROWEST):
            break
        widths.append(width)
        left -= width + 2
    head, *lines = ("  ".join(map(_cut, row, widths)).rstrip() for row in cells)
    print("\n".join([f"\033[1m{head}\033[0m", *lines]))
    if len(widths) < len(columns):
        say(f"not shown for want of width: {', '.join(columns[len(widths) :])}")


def _cut(cell: str, width: int) -> str:
    return cell.ljust(width) if len(cell) <= width else cell[: width - 1] + "…"


def _fitted(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for index, column in enumerate(columns):
        table.add_column(column, no_wrap=index == 0, overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))
    Console(highlight=False).print(table)
