"""The rows of evidence: what the plan lists, what each is keyed by, and how one is made.

A row is one command of the suite on one run: its pretraining, or a probe of it. It is named by the
recipe, the changed keys, the method's version and the command, and holds the resolved recipe, so a
row is never made twice, and a changed recipe or method makes it anew; a key that the suite gains
does not. Rows are JSON files; runs, which are large, stay outside.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from mimsuite.children import start_child

TOP = Path(__file__).resolve().parents[1]
PLAN = TOP / "docs/evidence/plan.yaml"
ROWS = TOP / "docs/evidence/rows"
RUNS = TOP / "runs/evidence"
ROW_SECONDS = 600  # after which a command is stopped, and goes on in a later turn
LOWEST = 19  # priority
SAVED = 75  # exit code: stopped after saving
SCORES = ("evaluate",)  # commands that score a model as it is: no baselines, and no seed
_RUN_OF = re.compile(r"\{run:([^}]+)\}")


@dataclass(frozen=True)
class Encoder:
    """A recipe with its changes, under the name that tables show."""

    name: str
    recipe: str
    keys: tuple[str, ...] = ()

    @property
    def method(self) -> str:
        """The name of the recipe's method."""
        name: str = _resolved(self.recipe, ())[0]["method"]["name"]
        return name


@dataclass(frozen=True)
class Table:
    """One page: encoders x seeds (x folds), each measured in the same ways.

    Attributes:
        measures: commands without their run, as ``linear-probe`` or ``finetune data.per_class=5``.
        verdict: the measure by which an encoder is judged; default: the first.
        pairs: (ours, theirs): encoders that are compared with each other, as in an ablation.
        needs: a file without which no row can be made, and the package that brings it.
        prepare: a folder that rows use, and the command of the suite that makes it.
    """

    name: str
    title: str
    about: str
    encoders: tuple[Encoder, ...]
    measures: tuple[str, ...]
    verdict: str
    seeds: tuple[int, ...] = (0, 1, 2)
    folds: int | None = None
    pairs: tuple[tuple[str, str], ...] = ()
    needs: dict[str, str] = field(default_factory=dict)
    prepare: dict[str, str] = field(default_factory=dict)

    @property
    def judged(self) -> bool:
        """Whether encoders are judged by what they gain over baselines; scores have none."""
        return self.verdict.split()[0] not in SCORES

    def missing_needs(self) -> list[str]:
        """What has to be installed before rows can be made."""
        return [f"{what}" for path, what in self.needs.items() if not Path(path).exists()]


@dataclass(frozen=True)
class Row:
    """One measure of one run; ``measure`` is empty for the pretraining itself."""

    table: Table
    encoder: Encoder
    seed: int
    fold: int | None
    measure: str = ""

    @property
    def keys(self) -> tuple[str, ...]:
        """Changes to the recipe; ``{run:NAME}`` stands for another encoder's run."""
        keys = (*self.encoder.keys, f"train.seed={self.seed}")
        if self.fold is None:
            return keys
        return (*keys, f"data.folds={self.table.folds}", f"data.fold={self.fold}")

    @property
    def key(self) -> str:
        """What names the row."""
        return _digest([self.encoder.recipe, self._plain_keys, self.method_version, self.measure])

    @property
    def document(self) -> dict[str, Any]:
        """The resolved recipe, section by section, without what only describes it."""
        return _resolved(self.encoder.recipe, self._plain_keys)[0]

    @property
    def method_version(self) -> int:
        return _resolved(self.encoder.recipe, self._plain_keys)[1]

    @property
    def _plain_keys(self) -> tuple[str, ...]:
        """Its keys with the name of another's row instead of the place of its run."""
        return tuple(_RUN_OF.sub(lambda found: self._other(found[1]).key, key) for key in self.keys)

    @property
    def path(self) -> Path:
        return ROWS / f"{self.key}.json"

    @property
    def stored(self) -> dict[str, Any] | None:
        """The row's file; ``None``: it is missing, or the recipe says something else today."""
        if not self.path.exists():
            return None
        found = json.loads(self.path.read_text(encoding="utf-8"))
        return found if _says(self.document, found["document"]) else None

    @property
    def done(self) -> bool:
        return self.stored is not None

    @property
    def missing(self) -> bool:
        """Whether it is to be made; a pretraining also where its run is not on this machine."""
        return not self.done or (not self.measure and not self.run.exists())

    @property
    def decides(self) -> bool:
        """Whether the verdict of its encoder needs it."""
        return self.measure in ("", self.table.verdict)

    @property
    def claimed(self) -> bool:
        """Whether somebody is making it now."""
        if not _lock_of(self).exists():
            return False
        with _locked(_lock_of(self)) as free:
            return not free

    def read(self) -> dict[str, Any]:
        """The result of its command."""
        return (self.stored or {})["result"]

    @property
    def pretraining(self) -> Row:
        return Row(self.table, self.encoder, self.seed, self.fold)

    @property
    def run(self) -> Path:
        """The run directory of its pretraining, which exists where it was made on this machine."""
        first = self.pretraining
        return RUNS / ((first.stored or {}).get("run") or f"{first.key}-{_digest(first.document)}")

    def requires(self) -> list[Row]:
        """Rows that come first: the pretraining, runs of others, the seed that chose the rates."""
        if not self.measure:
            return [self._other(name) for key in self.encoder.keys for name in _RUN_OF.findall(key)]
        first = self._first_seed()
        return [self.pretraining, *([first] if first else [])]

    def with_required(self) -> set[str]:
        """Its key and those of all rows that come first."""
        return {self.key}.union(*(one.with_required() for one in self.requires()))

    def command(self) -> list[str]:
        """Its words after ``mimsuite``, without places of this machine."""
        if not self.measure:
            return ["pretrain", self.encoder.recipe, *self.keys]
        return [self.measure.split()[0], "RUN", *self._options()]

    def words(self) -> list[str]:
        """Its words after ``mimsuite``, to be run."""
        if not self.measure:
            keys = [_RUN_OF.sub(lambda found: str(self._other(found[1]).run), k) for k in self.keys]
            plain = ("train.threads=1", "log.pictures_every_epochs=null")
            return [
                "pretrain",
                self.encoder.recipe,
                *keys,
                *plain,
                "--out",
                str(self.run),
                "--resume",
                "auto",
            ]
        verb = self.measure.split()[0]
        words = [verb, str(self.run), *self._options()]
        first = self._first_seed()
        if first is not None:
            place = RUNS / f"{self.key}.rates.json"
            _write(place, first.read())
            words[words.index("--rates") + 1] = str(place)
        if verb in ("finetune", "attentive-probe"):
            words += ["--out", f"{self.run}.{self.key}", "--resume", "auto"]
        return words

    def _options(self) -> list[str]:
        verb, *words = self.measure.split()
        if verb in SCORES:
            return [*words, "--json"]
        return [*words, "--baselines", "--seed", str(self.seed), "--json"]

    def _first_seed(self) -> Row | None:
        """Rates are chosen at the first seed."""
        first = self.table.seeds[0]
        if "--rates" not in self.measure.split() or self.seed == first:
            return None
        return Row(self.table, self.encoder, first, self.fold, self.measure)

    def _other(self, name: str) -> Row:
        encoder = next(one for one in self.table.encoders if one.name == name)
        return Row(self.table, encoder, self.seed, self.fold)


@cache
def _resolved(recipe: str, keys: tuple[str, ...]) -> tuple[dict[str, Any], int]:
    """The recipe's document and its method's version."""
    from mimsuite import config

    found = config.load(recipe, list(keys))
    document = json.loads(json.dumps(found.document, default=str))
    return {k: v for k, v in document.items() if k != "recipe"}, found.recipe.card.version


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def _says(today: Any, stored: Any) -> bool:
    """Whether today's document holds all that the stored one does."""
    if isinstance(stored, dict) and isinstance(today, dict):
        return all(key in today and _says(today[key], value) for key, value in stored.items())
    return bool(today == stored)


def tables(path: Path = PLAN) -> list[Table]:
    """The plan, in its order."""
    return [_table(entry) for entry in yaml.safe_load(path.read_text(encoding="utf-8"))["tables"]]


def _table(entry: dict[str, Any]) -> Table:
    encoders = tuple(
        Encoder(one["name"], one["recipe"], tuple(one.get("keys", ()))) for one in entry["encoders"]
    )
    measures = tuple(entry["measures"])
    return Table(
        name=entry["name"],
        title=entry["title"],
        about=entry["about"],
        encoders=encoders,
        measures=measures,
        verdict=entry.get("verdict", measures[0]),
        seeds=tuple(entry.get("seeds", (0, 1, 2))),
        folds=entry.get("folds"),
        pairs=tuple(tuple(pair) for pair in entry.get("pairs", ())),
        needs=entry.get("needs", {}),
        prepare=entry.get("prepare", {}),
    )


def rows_of(table: Table) -> Iterator[Row]:
    """All rows of a table, seed by seed: a complete seed is a figure already."""
    folds = [None] if table.folds is None else list(range(table.folds))
    for seed in table.seeds:
        for measure in ("", *table.measures):
            for encoder in table.encoders:
                for fold in folds:
                    yield Row(table, encoder, seed, fold, measure)


# --- making rows ---------------------------------------------------------------------------------


class Failed(Exception):
    """A row's command ended with an error."""


@dataclass(frozen=True)
class Place:
    """Where a row is made: a core (None: any), and a priority, 19 the lowest."""

    core: int | None = None
    nice: int = LOWEST


ANYWHERE = Place()


def cores_at_hand() -> list[int | None]:
    """The cores that this process may use; ``None`` for each where they cannot be chosen."""
    if hasattr(os, "sched_getaffinity"):
        return [*sorted(os.sched_getaffinity(0))]
    return [None] * (os.cpu_count() or 1)


def prepare(table: Table) -> None:
    """Make the data that a table's rows use, where it is not there yet."""
    for folder, command in table.prepare.items():
        with _locked(RUNS / f"{Path(folder).name}.lock", wait=True):
            if not (TOP / folder).exists():
                code, _, said = _run([*command.split(), folder], 3600)
                if code:
                    raise Failed(f"mimsuite {command} {folder}: {said.strip().splitlines()[-1:]}")


def make(row: Row, seconds: float = ROW_SECONDS, place: Place = ANYWHERE) -> bool:
    """Run a row's command for a while on one core.

    Returns:
        whether the row is done; otherwise it goes on from what was saved when called again, or
        another process is making it.

    Raises:
        Failed: the command ended with an error.
    """
    with _locked(_lock_of(row)) as mine:
        if not mine or not row.missing:
            return row.done
        prepare(row.table)
        begun = time.monotonic()
        code, out, said = _run(row.words(), seconds, place)
        if code == SAVED:
            return False
        if code:
            raise Failed(f"mimsuite {' '.join(row.command())}: {said.strip().splitlines()[-1:]}")
        if not row.run.exists():
            raise Failed(f"mimsuite {' '.join(row.command())}: left no run directory")
        result = {} if not row.measure else json.loads(out)
        here = ("run", "runs", "out", "written")  # places of this machine
        _write(
            row.path,
            {
                "command": ["mimsuite", *row.command()],
                "document": row.document,
                "recipe": row.encoder.recipe,
                "seed": row.seed,
                "fold": row.fold,
                "run": row.run.name,
                "last_turn_seconds": round(time.monotonic() - begun, 1),
                "result": {k: v for k, v in result.items() if k not in here},
            },
        )
    return True


def _run(words: list[str], seconds: float, place: Place = ANYWHERE) -> tuple[int, str, str]:
    """(exit code, stdout, stderr) of a command of the suite."""
    process = start_child(  # it ends with this process, also where that is killed
        [sys.executable, "-m", "mimsuite", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"},
        cwd=TOP,
    )
    _put(process.pid, place)
    try:
        out, said = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGTERM)
        out, said = process.communicate()
        if process.returncode == -signal.SIGTERM:
            said = f"not done after {seconds:.0f} s, and a probe saves nothing to go on from"
    except BaseException:
        process.kill()
        process.wait()
        raise
    return process.returncode, out, said


def _put(process: int, place: Place) -> None:
    """Give a process that has just begun its core and its priority."""
    with suppress(OSError):  # it may have ended
        os.setpriority(os.PRIO_PROCESS, process, place.nice)
        if place.core is not None:
            os.sched_setaffinity(process, {place.core})
        # On Linux priorities count within a session, and sessions have theirs.
        Path(f"/proc/{process}/autogroup").write_text(str(place.nice))


def _lock_of(row: Row) -> Path:
    return RUNS / f"{row.key}.lock"


@contextmanager
def _locked(path: Path, wait: bool = False) -> Iterator[bool]:
    """Whether this holder, and no other, works on a row; the kernel ends it with the process. The
    file stays: one that another has just opened must be the one that all others lock."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
            return
        yield True


def _write(path: Path, content: dict[str, Any]) -> None:
    """Whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}")
    draft.write_text(_lines(content), encoding="utf-8")
    draft.replace(path)


def _lines(content: dict[str, Any]) -> str:
    """JSON with a line for each entry of the first two levels, so that a change of one is seen."""
    entries = []
    for name, value in sorted(content.items()):
        if isinstance(value, dict) and value:
            inner = (f"  {_text(k)}: {_text(v)}" for k, v in sorted(value.items()))
            entries.append(f" {_text(name)}: {{\n" + ",\n".join(inner) + "\n }")
        else:
            entries.append(f" {_text(name)}: {_text(value)}")
    return "{\n" + ",\n".join(entries) + "\n}\n"


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True)
