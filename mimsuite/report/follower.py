"""A run directory that is not there yet, and one as ranks other than the first see it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mimsuite import console
from mimsuite.report.files import LineFile
from mimsuite.report.run_directory import RunDirectory
from mimsuite.report.status import Status
from mimsuite.text import clean, now


class NoDirectory(RunDirectory):
    """Before a run has its directory: nothing is written."""

    def __init__(self) -> None:
        """Has no path."""

    def metrics(self, step: int, values: dict[str, Any]) -> None:
        pass

    def picture(self, path: Path, step: int) -> None:
        pass

    def event(self, name: str, step: int, **fields: Any) -> None:
        pass

    def log(self, line: str) -> None:
        pass

    def cut_back(self, step: int) -> None:
        pass

    def finish(self, status: Status, **fields: Any) -> None:
        pass

    def close(self) -> None:
        pass


class Follower(NoDirectory):
    """Writes ``logs/rank-00001.log`` and nothing else; figures and verdict are the first rank's."""

    def __init__(self, path: Path, rank: int) -> None:
        self.path = path
        self.images, self.checkpoints = path / "images", path / "checkpoints"
        (path / "logs").mkdir(exist_ok=True)
        self._log = LineFile(path / "logs" / f"rank-{rank:05d}.log", console.warn)

    def event(self, name: str, step: int, **fields: Any) -> None:
        self.log(f"{name} at step {step}")

    def log(self, line: str) -> None:
        self._log.append(f"{now()} {clean(line)}")

    def finish(self, status: Status, **fields: Any) -> None:
        self.log(f"{status} {fields.get('reason', '')}".rstrip())
        self.close()

    def close(self) -> None:
        self._log.close()
