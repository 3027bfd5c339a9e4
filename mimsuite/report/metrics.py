"""The metrics of a run: ``metrics.jsonl`` is the record, ``metrics.csv`` a table of it.

The table is derived from the record and can be rebuilt after a crash. It is also rebuilt to add a
column; both files are cut back when a run resumes from an earlier step.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from mimsuite.report.files import LineFile, dumps, jsonable


class MetricsFiles:
    """Appends rows to ``metrics.jsonl`` and ``metrics.csv`` of a run directory."""

    def __init__(self, folder: Path, warn: Callable[[str], None]) -> None:
        self._warn = warn
        self._record = LineFile(folder / "metrics.jsonl", warn)
        self._table = LineFile(folder / "metrics.csv", warn)
        self._columns: list[str] = []
        self._rebuild_table()

    def append(self, step: int, values: dict[str, Any]) -> None:
        row = {"step": step, **jsonable(values)}
        self._record.append(dumps(row))
        if set(row) <= set(self._columns):
            self._table.append(_csv_line(row.get(name) for name in self._columns))
        else:
            try:
                self._rebuild_table()
            except OSError as error:  # the next row tries again
                self._warn(f"cannot add a column to {self._table.path}: {error.strerror}")

    def cut_back(self, step: int) -> None:
        """Drop every row after ``step``."""
        kept = [row for row in self._record.rows() if row.get("step", 0) <= step]
        self._record.replace("".join(dumps(row) + "\n" for row in kept))
        self._rebuild_table()

    def close(self) -> None:
        self._record.close()
        self._table.close()

    def _rebuild_table(self) -> None:
        rows = self._record.rows()
        columns = list(dict.fromkeys(name for row in rows for name in row))
        lines = [_csv_line(columns)] if rows else []
        lines += [_csv_line(row.get(name) for name in columns) for row in rows]
        self._table.replace("".join(line + "\n" for line in lines))
        self._columns = columns


def _csv_line(cells: Iterable[Any]) -> str:
    """One line without its end; an absent value is an empty cell."""
    text = io.StringIO()
    csv.writer(text, lineterminator="").writerow(cells)
    return text.getvalue()
