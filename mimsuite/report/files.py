"""Files of a run that are whole at every moment: valid JSON, and lines that are there or not.

JSON written here is valid JSON: numbers that JSON lacks become the strings ``"NaN"``,
``"Infinity"`` and ``"-Infinity"``, which both Python's ``float()`` and JavaScript's ``Number()``
read back.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from mimsuite.errors import UserError
from mimsuite.files import write_atomic

_FAILURES_ALLOWED = 3  # in a row, of appending to one file
_LONGEST_LINE = 1 << 20  # bytes looked at, at the end of a file, for a line cut by a crash


def jsonable(value: Any) -> Any:
    """``value`` as JSON can hold it; tensors and numpy arrays as (lists of) numbers."""
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        if math.isfinite(value):
            return value
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, dict):
        return {str(key): jsonable(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [jsonable(item) for item in value]
    if hasattr(value, "tolist"):  # numpy and torch, arrays and scalars
        return jsonable(value.tolist())
    return str(value)


def dumps(value: Any, indent: int | None = None) -> str:
    """``value`` as ASCII JSON, on one line unless ``indent`` is given."""
    return json.dumps(jsonable(value), allow_nan=False, indent=indent)


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """The objects of a JSON-lines file that may be missing, or end in a line cut by a crash."""
    if not path.is_file():
        return
    with path.open("r", encoding="utf-8", errors="replace") as lines:
        for line in lines:
            try:
                row = json.loads(line)
            except json.JSONDecodeError:
                continue
            if isinstance(row, dict):
                yield row


class LineFile:
    """Appends whole lines, each on disk before :meth:`append` returns.

    A line that cannot be written (full disk, quota, a network fault) is kept and written with the
    next one, after a call of ``warn``. The third failure in a row is an error.

    Raises:
        OSError: at the start, when the file cannot be opened.
        UserError: from :meth:`append`, at the third failure in a row.
    """

    def __init__(self, path: Path, warn: Callable[[str], None]) -> None:
        self.path, self._warn = path, warn
        self._pending, self._failures = b"", 0
        self._open()

    def append(self, line: str) -> None:
        self._pending += line.encode("utf-8", "backslashreplace") + b"\n"
        try:
            self._write(self._pending)
        except OSError as error:
            self._failures += 1
            fault = f"cannot write {self.path}: {error.strerror or error}"
            if self._failures >= _FAILURES_ALLOWED:
                raise UserError(f"{fault}; mend that and resume the run") from error
            self._warn(f"{fault}; will try again")
        else:
            self._pending, self._failures = b"", 0

    def replace(self, content: str) -> None:
        """Rewrite the whole file atomically and go on appending to the new one.

        Lines that could not be written yet are dropped: ``content`` holds what shall stay of them.
        """
        write_atomic(self.path, content)
        self._pending, self._failures = b"", 0
        self.close()
        self._open()

    def rows(self) -> list[dict[str, Any]]:
        """The objects of a JSON-lines file, with those that could not be written yet."""
        return [*read_lines(self.path), *map(json.loads, self._pending.splitlines())]

    def close(self) -> None:
        self._file.close()

    def _open(self) -> None:
        self._file = self.path.open("ab", buffering=0)
        self._drop_cut_line()

    def _drop_cut_line(self) -> None:
        """A process killed while writing leaves a line without an end; the next must not join."""
        size = self.path.stat().st_size
        with self.path.open("rb") as file:
            start = max(0, size - _LONGEST_LINE)
            file.seek(start)
            tail = file.read()
        if tail and not tail.endswith(b"\n"):
            self._file.truncate(start + tail.rfind(b"\n") + 1)

    def _write(self, data: bytes) -> None:
        before = os.fstat(self._file.fileno()).st_size
        try:
            written = self._file.write(data)
            if written != len(data):
                raise OSError(None, "only part of a line was written, the disk is full")
        except OSError:
            self._file.truncate(before)
            raise
