"""Run directories at a glance: how far each is, and what to do with it next. Torch-free."""

from __future__ import annotations

import json
import os
import shlex
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mimsuite.cluster.slurm import RECORD, job_of
from mimsuite.report.commands import next_steps
from mimsuite.report.run_facts import lookup, read_json, read_yaml
from mimsuite.report.status import status_of

_MARKS = ("config.yaml", RECORD)  # a run that began, and one that a job will begin
_SIGNS = ("metrics.jsonl", "events.jsonl", "train.log", "DONE", "PREEMPTED", "FAILED", RECORD)
QUIET_SECONDS = 1800.0  # without a line written; a step is shorter
_TAIL_BYTES = 1 << 16


@dataclass(frozen=True)
class RunSummary:
    """A run in one line.

    Attributes:
        recipe: name, or title of a file of one's own.
        status: ``DONE``, ``PREEMPTED``, ``FAILED``, ``running``, ``quiet`` (no verdict, yet
            nothing written for half an hour: killed, or its node is gone) or ``waiting`` (a job
            that has not begun).
        step, total_steps, loss: of the last line of metrics; None where there is none.
        age: seconds since the run last wrote something.
        job: SLURM's id of the job that runs it, or did; its script beside it.
        next: the command that makes sense now.
    """

    path: Path
    recipe: str
    status: str
    step: int | None
    total_steps: int | None
    loss: float | None
    age: float
    job: str | None
    next: str


def find_runs(folders: list[Path]) -> Iterator[Path]:
    """Run directories among and below some folders, sorted; what is inside of one is its own."""
    for folder in folders:
        if any((folder / mark).is_file() for mark in _MARKS):
            yield folder
            continue
        for here, names, files in os.walk(folder):
            names[:] = sorted(name for name in names if not name.startswith("."))
            if any(mark in files for mark in _MARKS):
                names.clear()
                yield Path(here)


def summarise(run: Path) -> RunSummary:
    """Read what there is to know of a run; parts may be missing, however it ended."""
    document, row = read_yaml(run / "config.yaml"), _last_row(run / "metrics.jsonl")
    ended = status_of(run)
    age = quiet_seconds(run)
    step = row.get("step")
    status: str
    if ended is not None:
        status, step = ended[0], ended[1].get("step", step)
    elif not document:
        status = "waiting"
    else:
        status = "running" if age < QUIET_SECONDS else "quiet"
    return RunSummary(
        path=run,
        recipe=_name(run, document),
        status=status,
        step=step if isinstance(step, int) else None,
        total_steps=_total_steps(document, row),
        loss=_number(row, "loss"),
        age=age,
        job=job_of(run),
        next=_next(run, status),
    )


def quiet_seconds(run: Path) -> float:
    """Seconds since the run last wrote something."""
    written = [(run / name).stat().st_mtime for name in _SIGNS if (run / name).is_file()]
    return max(0.0, time.time() - max(written, default=run.stat().st_mtime))


def _name(run: Path, document: dict[str, Any]) -> str:
    if not document:
        return str(read_json(run / RECORD).get("recipe", ""))
    with (run / "config.yaml").open(encoding="utf-8", errors="replace") as file:
        named = file.readline().removeprefix("# ").partition(", resolved")[0].strip()
    return named if "/" in named or not named else Path(named).name


def _total_steps(document: dict[str, Any], row: dict[str, Any]) -> int | None:
    """Total steps of the run; ``None`` before the first logged step shows an epoch's length."""
    epoch, step = _number(row, "epoch"), _number(row, "step")
    epochs = lookup(document, "schedule.epochs")
    if not epoch or not step or not isinstance(epochs, int | float):
        return None
    return round(epochs * round(step / epoch))


def _next(run: Path, status: str) -> str:
    record = read_json(run / RECORD)
    if status in ("running", "waiting"):
        return ""
    if status != "DONE" and isinstance(record.get("script"), str):
        _, array, element = str(record.get("job", "")).partition("_")
        words = [f"--array={element}"] if array else []
        return shlex.join(["sbatch", *words, record["script"]])
    steps = dict(next_steps(run))
    return next((steps[name] for name in ("probe", "score", "resume") if name in steps), "")


def _last_row(path: Path) -> dict[str, Any]:
    """The last whole line of a file of JSON lines; empty where there is none."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - _TAIL_BYTES))
            lines = file.read().splitlines()
    except OSError:
        return {}
    for line in reversed(lines):
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict):
            return row
    return {}


def _number(row: dict[str, Any], name: str) -> float | None:
    try:
        return float(row[name])
    except (KeyError, TypeError, ValueError):
        return None
