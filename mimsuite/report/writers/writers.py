"""All writers of a run.

``writers.json`` keeps what a resumed run must know: the run id, and the last step that each tracker
got.
"""

from __future__ import annotations

import json
import threading
import time
import uuid
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from mimsuite.errors import UserError
from mimsuite.files import write_atomic
from mimsuite.report.writers.base import RunIdentity, Writer
from mimsuite.report.writers.feed import Feed

_WRITERS = {
    "tensorboard": "mimsuite.report.writers.tensorboard:TensorBoardWriter",
    "wandb": "mimsuite.report.writers.wandb:WandbWriter",
    "mlflow": "mimsuite.report.writers.mlflow:MLflowWriter",
    "trackio": "mimsuite.report.writers.trackio:TrackioWriter",
}
_PATIENCE_SECONDS = 30.0  # at the end of a run, for all writers together
_FILE = "writers.json"
_NO_JSON = ("NaN", "Infinity", "-Infinity")


def require_packages(names: tuple[str, ...]) -> None:
    """Raise a ``UserError`` for a writer whose package is not installed. Imports none."""
    for name in names:
        if find_spec(name) is None:
            raise UserError(f"log.writers: {name} is not installed: pip install 'mimsuite[log]'")


class Writers:
    """What goes to every writer.

    Args:
        folder: the run directory.
        names: of ``log.writers``.
        project: ``log.project``.
        config: the recipe.
        warn: takes lines for people.

    Raises:
        OSError: the run id cannot be stored.
    """

    def __init__(
        self,
        folder: Path,
        names: tuple[str, ...],
        project: str,
        config: dict[str, Any],
        warn: Callable[[str], None],
    ) -> None:
        self._warn = warn
        self._feeds: dict[str, Feed] = {}
        if not names:
            return
        folder = folder.resolve()
        self._file, self._lock = folder / _FILE, threading.Lock()
        stored = _read(self._file)
        self._id = str(stored.get("id") or uuid.uuid4().hex[:8])
        self._steps: dict[str, int] = dict.fromkeys(names, -1) | stored.get("steps", {})
        self._pictured: dict[tuple[str, str], int] = {}  # (writer, picture) -> last step
        self._before: dict[str, int] = dict(self._steps)
        self._store()
        identity = RunIdentity(folder, project, folder.name, self._id, config)
        for name in dict.fromkeys(names):
            self._feeds[name] = Feed(name, partial(self._open, name, identity))

    def metrics(self, step: int, values: dict[str, Any]) -> None:
        """Pass the figures of a step on; what is no number is left out."""
        figures = _figures(values)
        for name, feed in self._feeds.items():
            feed.put(partial(self._write, name, step, figures))
        self.say()

    def picture(self, path: Path, step: int) -> None:
        """Pass a PNG file on; its name is the file's up to the step."""
        for name, feed in self._feeds.items():
            feed.put(partial(self._draw, name, path, step))

    def go_on(self, step: int, rows: Iterable[dict[str, Any]]) -> None:
        """Continue from this step after a resume.

        Args:
            rows: rows of ``metrics.jsonl`` up to the step. Each writer gets the rows that it lacks,
                as a killed process loses its queue.
        """
        record = [(int(row["step"]), _figures(row)) for row in rows if "step" in row]
        for name, feed in self._feeds.items():
            feed.put(partial(self._go_on, name, step, record))

    def say(self) -> None:
        """Warn of what the threads have met."""
        for feed in self._feeds.values():
            while feed.notes:
                self._warn(feed.notes.popleft())

    def close(self) -> None:
        """Wait for the writers, but not for ever."""
        deadline = time.monotonic() + _PATIENCE_SECONDS
        for feed in self._feeds.values():
            feed.close(deadline)
        self.say()
        self._feeds = {}

    # --- in the writers' threads ---

    def _open(self, name: str, identity: RunIdentity) -> Writer:
        writer = _class_of(name)(identity)
        if writer.last_step is not None:
            self._steps[name] = self._before[name] = writer.last_step
        return writer

    def _write(self, name: str, step: int, figures: dict[str, float], writer: Writer) -> None:
        """A step that the tracker lacks; noted once it is there."""
        if step <= self._steps[name]:
            return
        writer.metrics(step, figures)
        with self._lock:
            self._steps[name] = step
            with suppress(OSError):  # a full disk: at worst a resumed run writes the step again
                self._store()

    def _draw(self, name: str, path: Path, step: int, writer: Writer) -> None:
        what = path.stem.removesuffix(f"-{step:08d}")
        last: int = self._pictured.get((name, what), self._before[name])
        if writer.replaces or step > last:
            writer.picture(what, step, path)
            self._pictured[name, what] = step

    def _go_on(
        self, name: str, step: int, record: list[tuple[int, dict[str, float]]], writer: Writer
    ) -> None:
        if writer.replaces:
            self._steps[name] = min(self._steps[name], step)
            # A killed process may have written the first row after those that it noted.
            lacking = (at for at, _ in record if at > self._steps[name])
            writer.rewind(next(lacking, step + 1) - 1)
        for at, figures in record:
            self._write(name, at, figures, writer)

    def _store(self) -> None:
        content = {"id": self._id, "steps": self._steps}
        write_atomic(self._file, json.dumps(content, indent=2) + "\n")


def _class_of(name: str) -> Callable[[RunIdentity], Writer]:
    module, _, found = _WRITERS[name].partition(":")
    made: Callable[[RunIdentity], Writer] = getattr(import_module(module), found)
    return made


def _read(path: Path) -> dict[str, Any]:
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return stored if isinstance(stored, dict) else {}


def _figures(values: dict[str, Any]) -> dict[str, float]:
    """The numbers among them; ``metrics.jsonl`` has NaN and infinities as strings."""
    figures = {}
    for name, value in values.items():
        if name != "step" and not (isinstance(value, str) and value not in _NO_JSON):
            with suppress(TypeError, ValueError):
                figures[name] = float(value)
    return figures
