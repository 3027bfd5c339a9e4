"""When a run saves, and what happens when it cannot."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from mimsuite.cluster.peers import Peers
from mimsuite.cluster.sharding import full_bytes, whole
from mimsuite.config.keys.shared import CheckpointSection
from mimsuite.errors import UserError
from mimsuite.train import checkpoint, parts, retention
from mimsuite.train.checkpoint import CheckpointState
from mimsuite.train.step import StepResult

if TYPE_CHECKING:
    from mimsuite.report import RunDirectory

_FAILED_SAVES = 3  # in a row, until training stops: a full disk is often only full for a while


class Saver:
    """Writes the checkpoints of a run, and keeps those that the recipe wants.

    Attributes:
        step: of the last save, or that training went on from; -1 before.
    """

    def __init__(
        self, peers: Peers, section: CheckpointSection, warn: Callable[[str], None]
    ) -> None:
        self.peers, self.section, self.warn = peers, section, warn
        self.step = -1
        self._at, self._failed = time.monotonic(), 0
        self._loss: Tensor | float = 0.0  # summed since the last save
        self._steps: Tensor | float = 0.0

    def add(self, result: StepResult) -> None:
        """Count a step to the mean loss by which the best checkpoint is known."""
        self._loss = self._loss + torch.where(result.skipped > 0, 0.0, result.loss).double()
        self._steps = self._steps + (1 - result.skipped)

    def late(self) -> bool:
        """Whether the last save is too long ago."""
        minutes = self.section.every_minutes
        return minutes is not None and time.monotonic() - self._at >= 60 * minutes

    def loaded(self, step: int) -> None:
        """The run goes on from a checkpoint of this step."""
        self.step, self._loss, self._steps = step, 0.0, 0.0

    def save(self, run: RunDirectory, state: CheckpointState, *, last: bool) -> None:
        """Write a checkpoint, by all ranks together.

        Args:
            state: its tensors as this rank has them.
            last: training ends here, so a failure is final.

        Raises:
            UserError: it could not be written, and that is final or was so several times.
        """
        groups = {"model": state.model, "optim": state.optim, "ema": state.ema}
        every = [tensor for tensors in groups.values() for tensor in tensors.values()]
        reports: list[str] = []
        if not any(isinstance(tensor, DTensor) for tensor in every):
            gathered = groups
        elif sum(map(full_bytes, groups.values())) <= self.section.gather_gib * 2**30:
            gathered = {n: whole(t, keep=self.peers.first) for n, t in groups.items()}
        else:
            gathered = {name: {} for name in groups}
            own = self._write_part(run, state.step, groups)
            reports = self.peers.texts(own, patient=True)
        ready = replace(
            state,
            model=gathered["model"],
            optim=gathered["optim"],
            ema=gathered["ema"],
            facts={**state.facts, retention.FIGURE: self._mean_loss()},
        )
        self.peers.on_first(lambda: self._write(run, ready, reports, last))
        self._at, self.step = time.monotonic(), state.step

    def _write_part(self, run: RunDirectory, step: int, groups: parts.Groups) -> str:
        """Returns a report; see :mod:`mimsuite.train.parts`."""
        try:
            if self.peers.first:
                checkpoint.need_space(run.checkpoints)
        except OSError as error:
            return parts.failure(0, error)
        folder = checkpoint.folder_of_parts(run.checkpoints, step)
        return parts.write_part(folder, groups, self.peers.rank, self.peers.world)

    def _write(
        self, run: RunDirectory, state: CheckpointState, reports: list[str], last: bool
    ) -> None:
        section = self.section
        try:
            checkpoint.save(run.checkpoints, state, reports)
            retention.prune(
                run.checkpoints,
                state.step,
                section.keep,
                best=section.keep_best,
                every_steps=section.keep_every_steps,
            )
        except OSError as error:
            self._failed += 1
            self.warn(f"checkpoint at step {state.step} not written: {error}")
            if last or self._failed >= _FAILED_SAVES:
                raise UserError(
                    f"cannot write checkpoints in {run.checkpoints}: {error.strerror or error}; "
                    f"make room there and go on with --resume auto"
                ) from None
            return
        self._failed, self._loss, self._steps = 0, 0.0, 0.0
        run.event("save", state.step)

    def _mean_loss(self) -> float | None:
        """``None`` where there was no good step since the last save."""
        steps = float(self._steps)
        return float(self._loss) / steps if steps else None
