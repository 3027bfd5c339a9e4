"""Trackio: a local data base (TRACKIO_DIR), or the Space of TRACKIO_SPACE_ID."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

from mimsuite.report.writers.base import RunIdentity


class TrackioWriter:
    """Runs are known by their names there, so the name carries the run id."""

    replaces: ClassVar[bool] = False
    last_step: int | None = None

    def __init__(self, run: RunIdentity) -> None:
        import trackio
        from trackio import run as trackio_run
        from trackio import utils

        for module in (trackio, trackio_run, utils):  # it prints to stdout, which has results
            vars(module)["print"] = _nothing
        self._image = trackio.Image
        self._run = trackio.init(
            project=run.project,
            name=f"{run.name}-{run.id}",
            config=run.config,
            resume="allow",
            embed=False,
            auto_log_gpu=False,
            auto_log_cpu=False,
        )

    def metrics(self, step: int, values: dict[str, float]) -> None:
        self._run.log(values, step=step)

    def picture(self, name: str, step: int, path: Path) -> None:
        self._run.log({name: self._image(str(path))}, step=step)

    def rewind(self, step: int) -> None:
        """Not asked for."""

    def close(self) -> None:
        self._run.finish()


def _nothing(*text: Any, **options: Any) -> None:
    """In place of a module's ``print``."""
