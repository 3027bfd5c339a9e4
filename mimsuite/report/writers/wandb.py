"""Weights & Biases: files in the run directory's ``wandb/``, sent unless WANDB_MODE=offline."""

from __future__ import annotations

import os
from pathlib import Path
from typing import ClassVar

from mimsuite.report.writers.base import RunIdentity


class WandbWriter:
    """Steps of a run only rise there; offline, each start makes a folder of the same run."""

    replaces: ClassVar[bool] = False

    def __init__(self, run: RunIdentity) -> None:
        import wandb

        offline = os.environ.get("WANDB_MODE", "online") != "online"
        if not offline and not wandb.api.api_key:  # it would ask at the terminal
            raise RuntimeError("no login: run `wandb login`, or set WANDB_MODE=offline")
        self._image = wandb.Image
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT") or run.project,
            name=run.name,
            id=run.id,
            resume="allow",
            dir=str(run.folder),
            config=run.config,
            reinit="create_new",
            settings=wandb.Settings(console="off", silent=True),
        )
        next_step: int = self._run.starting_step
        self.last_step = None if offline else next_step - 1

    def metrics(self, step: int, values: dict[str, float]) -> None:
        self._run.log(values, step=step)

    def picture(self, name: str, step: int, path: Path) -> None:
        self._run.log({name: self._image(str(path))}, step=step)

    def rewind(self, step: int) -> None:
        """Not asked for."""

    def close(self) -> None:
        self._run.finish()
