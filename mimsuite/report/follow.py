"""The metrics of a run while another process writes them. Torch-free."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mimsuite.report.run_facts import read_json
from mimsuite.report.runs import QUIET_SECONDS, quiet_seconds
from mimsuite.report.status import status_of

_LOOK_SECONDS = 0.5


def follow(run: Path) -> Iterator[dict[str, Any]]:
    """The last row of metrics, then each new one, until the run has ended.

    A run has ended when it has a status file, when its process on this machine is gone, or when it
    has written nothing for half an hour.
    """
    tail = Tail(run / "metrics.jsonl")
    ended = has_ended(run)
    yield from tail.rows()[-1:]
    while not ended:
        time.sleep(_LOOK_SECONDS)
        ended = has_ended(run)  # before the look, so that the last rows are seen
        yield from tail.rows()


def has_ended(run: Path) -> bool:
    """Whether nothing writes to a run any more, as far as can be seen from here."""
    return status_of(run) is not None or _is_killed(run) or quiet_seconds(run) >= QUIET_SECONDS


class Tail:
    """New rows of a file of JSON lines that another process appends to, or replaces."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._inode = self._offset = 0
        self._lines: list[bytes] = []

    def rows(self) -> list[dict[str, Any]]:
        """Rows since the last call; of a replaced file those after the unchanged ones."""
        try:
            with self.path.open("rb") as file:
                return self._rows(file)
        except OSError:  # not there yet
            return []

    def _rows(self, file: Any) -> list[dict[str, Any]]:
        facts = os.fstat(file.fileno())
        before: list[bytes] = []
        if facts.st_ino != self._inode or facts.st_size < self._offset:  # a resumed run cut it back
            self._inode, self._offset = facts.st_ino, 0
            before, self._lines = self._lines, []
        file.seek(self._offset)
        data = file.read()
        whole = data[: data.rfind(b"\n") + 1]
        self._offset += len(whole)
        lines = whole.splitlines()
        self._lines += lines
        same = 0
        while same < min(len(before), len(lines)) and before[same] == lines[same]:
            same += 1
        return [row for row in map(_row, lines[same:]) if row]


def _row(line: bytes) -> dict[str, Any]:
    try:
        found = json.loads(line)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _is_killed(run: Path) -> bool:
    """Whether the process in the run's lock file was one of this machine and is gone."""
    holder = read_json(run / ".lock")
    if holder.get("host") != socket.gethostname() or not isinstance(holder.get("pid"), int):
        return False
    try:
        os.kill(holder["pid"], 0)
    except ProcessLookupError:
        return True
    except OSError:  # another user's
        return False
    return False
