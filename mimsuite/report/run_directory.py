"""The run directory: the files that people and scripts may rely on.

====================  ===========================================================================
``config.yaml``       the recipe as it ran, every key
``config.diff.yaml``  what the command line changed against the recipe file
``command.txt``       one line for each start of the run
``env.json``          versions, devices, host, git commit; earlier starts under ``earlier``
``metrics.jsonl``     one object per logged step; ``metrics.csv`` is the same as a table
``events.jsonl``      one object per event: ``event``, ``step``, ``time`` and what belongs to it
``train.log``         what happened, for people
``images/``           first batch, masks, reconstructions, curves
``checkpoints/``      written by training
``writers.json``      run id of experiment trackers (``log.writers``)
``logs/``             ``rank-00001.log`` ..., of several processes
``job.sbatch`` ...    of a SLURM job: its script, ``job.json`` its id, ``job.log`` starts and ends
``DONE`` ...          or ``PREEMPTED``, ``FAILED``: JSON with ``step``, ``time``, ``reason``
====================  ===========================================================================

The first rank writes it. Nothing here imports torch until a run is created.
"""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mimsuite import console
from mimsuite.errors import UserError
from mimsuite.files import write_atomic
from mimsuite.report.environment import environment
from mimsuite.report.files import LineFile, dumps, read_lines
from mimsuite.report.metrics import MetricsFiles
from mimsuite.report.status import Status, clear_status
from mimsuite.report.writers import Writers
from mimsuite.text import clean, now

if TYPE_CHECKING:
    from mimsuite.config import Resolved


class RunDirectory:
    """A run directory that is open for writing; made by :meth:`create`.

    Attributes:
        path: the directory.
        images: its folder of pictures.
        checkpoints: its folder of checkpoints.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.images = path / "images"
        self.checkpoints = path / "checkpoints"
        self.images.mkdir(exist_ok=True)
        self.checkpoints.mkdir(exist_ok=True)
        self._log = LineFile(path / "train.log", console.warn)
        self._events = LineFile(path / "events.jsonl", console.warn)
        self._metrics = MetricsFiles(path, console.warn)
        self._writers: Writers | None = None

    @classmethod
    def create(
        cls,
        path: str | Path,
        resolved: Resolved,
        *,
        resume: bool,
        chosen: Mapping[str, Any] | None = None,
    ) -> RunDirectory:
        """Create the directory of a new run, or open an existing one.

        With ``resume`` a missing directory is created and an existing one is continued: its status
        file is removed, the command is appended, and a changed configuration replaces the stored
        one, which is kept as ``config.1.yaml``, ``config.2.yaml`` ...

        Args:
            chosen: what was chosen for this machine (``train.precision: auto``), for ``env.json``.

        Raises:
            UserError: the directory is not empty and ``resume`` is off, it holds files that belong
                to no run or job, or it is not writable (read-only, full disk).
        """
        path = Path(path)
        try:
            if not (resume and _is_run(path)):
                _refuse_to_overwrite(path)
            path.mkdir(parents=True, exist_ok=True)
            _write_configuration(path, resolved)
            _append_command(path / "command.txt")
            _write_environment(path / "env.json", chosen or {})
            clear_status(path)
            run = cls(path)
            run._start_writers(resolved)
            return run
        except OSError as error:
            fault = error.strerror or error
            raise UserError(
                f"cannot write run directory {path}: {fault}; choose another --out"
            ) from error

    def metrics(self, step: int, values: dict[str, Any]) -> None:
        """Add a row of figures: numbers, or tensors of one number.

        Raises:
            UserError: the file could not be written three times in a row.
        """
        self._metrics.append(step, values)
        if self._writers is not None:
            self._writers.metrics(step, values)

    def picture(self, path: Path, step: int) -> None:
        """A PNG file was drawn at a step: experiment trackers get it."""
        if self._writers is not None:
            self._writers.picture(path, step)

    def event(self, name: str, step: int, **fields: Any) -> None:
        """Add an event: ``resume``, ``save``, ``skip``, ``rewind``, ``preempt``, ``bad_sample`` ...

        Raises:
            UserError: the file could not be written three times in a row.
        """
        self._events.append(dumps({"event": name, "step": step, "time": now(), **fields}))

    def log(self, line: str) -> None:
        """Add a line, with the time, to ``train.log``; control characters are left out."""
        self._log.append(f"{now()} {clean(line)}")

    def cut_back(self, step: int) -> None:
        """Drop the metrics after ``step``, from where the run resumes. Events stay: they happened.

        Raises:
            UserError: the shortened files cannot be written; the old ones are then untouched.
        """
        try:
            self._metrics.cut_back(step)
        except OSError as error:
            raise UserError(f"cannot shorten the metrics in {self.path}: {error}") from error
        if self._writers is not None:
            self._writers.go_on(step, read_lines(self.path / "metrics.jsonl"))

    def finish(self, status: Status, **fields: Any) -> None:
        """Close the files and leave the one status file: step, time, reason and ``fields``.

        Raises:
            UserError: the status file cannot be written.
        """
        content = {"step": None, "time": now(), "reason": "", **fields}
        try:
            clear_status(self.path)
            write_atomic(self.path / status, dumps(content, indent=2) + "\n")
        except OSError as error:
            fault = error.strerror or error
            raise UserError(f"cannot write {self.path / status}: {fault}") from error
        finally:
            self.close()

    def close(self) -> None:
        """Close the files without a verdict; a run that ended so can be resumed."""
        if self._writers is not None:
            self._writers.close()
        for file in (self._log, self._events, self._metrics):
            file.close()

    def _start_writers(self, resolved: Resolved) -> None:
        log = resolved.recipe.log
        if log.writers:
            document = resolved.document
            self._writers = Writers(self.path, log.writers, log.project, document, self._warn)

    def _warn(self, text: str) -> None:
        console.warn(text)
        self.log(f"warning: {text}")


def _is_run(path: Path) -> bool:
    """Whether a run has begun there, or a job that was submitted will begin one."""
    return any(path.glob("config.yaml")) or any(path.glob("checkpoints")) or any(path.glob("job.*"))


def _refuse_to_overwrite(path: Path) -> None:
    if (path / "config.yaml").exists():
        raise UserError(
            f"run directory {path} exists: resume it with --resume auto, or choose another --out"
        )
    if path.exists() and not path.is_dir():
        raise UserError(f"{path} is a file, not a place for a run directory: choose another --out")
    if path.exists() and any(not file.name.startswith(".") for file in path.iterdir()):
        raise UserError(f"directory {path} is not empty: choose another --out")


def _write_configuration(path: Path, resolved: Resolved) -> None:
    """``config.yaml`` comes first of all files: it is what makes a directory a run."""
    current, new = path / "config.yaml", resolved.yaml()
    if current.exists():
        if current.read_text(encoding="utf-8") == new:
            return
        number = 1
        while (old := path / f"config.{number}.yaml").exists():
            number += 1
        write_atomic(old, current.read_bytes())
    write_atomic(current, new)
    write_atomic(path / "config.diff.yaml", resolved.changed_yaml())


def _append_command(path: Path) -> None:
    program = Path(sys.argv[0]).name or "python"
    with path.open("a", encoding="utf-8", errors="backslashreplace") as file:
        file.write(shlex.join([program, *sys.argv[1:]]) + "\n")


def _write_environment(path: Path, chosen: Mapping[str, Any]) -> None:
    """The present environment on top; earlier ones that differed from their successor below."""
    current = {**environment(), **chosen}
    earlier: list[Any] = []
    try:
        before = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        before = None
    if isinstance(before, dict):
        earlier = before.pop("earlier", [])
        if {**before, "time": ""} != {**current, "time": ""}:
            earlier.append(before)
    write_atomic(path, dumps({**current, "earlier": earlier}, indent=2) + "\n")
