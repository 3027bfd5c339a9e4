"""When a run saves, and what happens when it cannot.

Training waits for a copy of its state on the host, not for the disk: a thread writes the copy.
One save is on its way at a time, and what became of it is known at one of the next steps.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from mimsuite.cluster.background import Background
from mimsuite.cluster.peers import Peers
from mimsuite.cluster.sharding import full_bytes, whole
from mimsuite.config.keys.shared import CheckpointSection
from mimsuite.errors import UserError
from mimsuite.train import checkpoint, parts, retention
from mimsuite.train.checkpoint import CheckpointState
from mimsuite.train.host_copy import host_copy
from mimsuite.train.step import StepResult

if TYPE_CHECKING:
    from mimsuite.report import RunDirectory

_FAILED_SAVES = 3  # in a row, until training stops: a full disk is often only full for a while


@dataclass(frozen=True)
class _Save:
    """A save on its way; the sums since the save before belong to it, unless it fails."""

    run: RunDirectory
    step: int
    loss: Tensor | float
    steps: Tensor | float
    ended: Future[None]


class Saver:
    """Writes the checkpoints of a run, and keeps those that the recipe wants.

    Attributes:
        step: of the last save, or that training went on from; -1 before.
        fault: that ends training, as soon as all ranks know of it; of the first rank.
    """

    def __init__(
        self, peers: Peers, section: CheckpointSection, warn: Callable[[str], None]
    ) -> None:
        self.peers, self.section, self.warn = peers, section, warn
        self.step = -1
        self._at, self._failed = time.monotonic(), 0
        self._loss: Tensor | float = 0.0  # summed since the last save
        self._steps: Tensor | float = 0.0
        self._writer = Background("checkpoints")
        self._on_its_way: _Save | None = None
        self.fault: UserError | None = None

    def add(self, result: StepResult) -> None:
        """Count a step to the mean loss by which the best checkpoint is known."""
        self._loss = self._loss + torch.where(result.skipped > 0, 0.0, result.loss).double()
        self._steps = self._steps + (1 - result.skipped)

    def late(self) -> bool:
        """Whether the last save is too long ago."""
        minutes = self.section.every_minutes
        return minutes is not None and time.monotonic() - self._at >= 60 * minutes

    def loaded(self, step: int) -> None:
        """Continue from a checkpoint of this step."""
        self.step, self._loss, self._steps = step, 0.0, 0.0

    def save(self, run: RunDirectory, state: CheckpointState, *, last: bool) -> None:
        """Copy the state and begin to write it, by all ranks together; the save before is waited
        for.

        Args:
            state: its tensors as this rank has them.
            last: training ends here: the save is waited for, and a failure is final.

        Raises:
            UserError: a save failed, and that is final or was so several times.
        """
        self.settle()
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
        if self.peers.first:
            self._begin(run, ready, groups, reports)
        self._at, self.step = time.monotonic(), state.step
        if last:
            self.settle(last=True)

    def settle(self, *, last: bool = False) -> None:
        """Wait for the save that is on its way, if one is, by all ranks together.

        Args:
            last: training ends, so a failure is final.

        Raises:
            UserError: as :meth:`save`.
        """
        self.peers.on_first(lambda: self._settle(last))

    def look(self) -> None:
        """Note what became of a save that has ended meanwhile. Never waits."""
        if self._on_its_way is not None and self._on_its_way.ended.done():
            self._conclude(last=False)

    def close(self) -> None:
        """Before the process ends: wait for what this rank writes. A failure is a warning."""
        with suppress(UserError):
            self._settle(last=False)

    def _settle(self, last: bool) -> None:
        if self._on_its_way is not None:
            self._conclude(last)
        if self.fault is not None:
            raise self.fault

    def _begin(
        self,
        run: RunDirectory,
        state: CheckpointState,
        live: parts.Groups,
        reports: list[str],
    ) -> None:
        groups = {"model": state.model, "optim": state.optim, "ema": state.ema}
        # What was put together from the parts of ranks is a copy already.
        shared = {
            group: {n: t for n, t in tensors.items() if t is live[group][n]}
            for group, tensors in groups.items()
        }
        copies = host_copy(shared)
        ready = replace(
            state,
            model={**state.model, **copies["model"]},
            optim={**state.optim, **copies["optim"]},
            ema={**state.ema, **copies["ema"]},
            facts=deepcopy(state.facts),
        )
        write = partial(self._write, run.checkpoints, ready, reports)
        self._on_its_way = _Save(run, state.step, self._loss, self._steps, self._writer.do(write))
        self._loss, self._steps = 0.0, 0.0

    def _write_part(self, run: RunDirectory, step: int, groups: parts.Groups) -> str:
        """Returns a report; see :mod:`mimsuite.train.parts`."""
        try:
            if self.peers.first:
                checkpoint.need_space(run.checkpoints)
        except OSError as error:
            return parts.failure(0, error)
        folder = checkpoint.folder_of_parts(run.checkpoints, step)
        return parts.write_part(folder, groups, self.peers.rank, self.peers.world)

    def _write(self, root: Path, state: CheckpointState, reports: list[str]) -> None:
        """In the writer's thread."""
        section = self.section
        checkpoint.save(root, state, reports)
        retention.prune(
            root,
            state.step,
            section.keep,
            best=section.keep_best,
            every_steps=section.keep_every_steps,
        )

    def _conclude(self, last: bool) -> None:
        """Wait for the save on its way, and note what became of it."""
        save, self._on_its_way = self._on_its_way, None
        assert save is not None
        try:
            save.ended.result()
        except OSError as error:
            self._failed += 1
            self._loss, self._steps = self._loss + save.loss, self._steps + save.steps
            self.warn(f"checkpoint at step {save.step} not written: {error}")
            if last or self._failed >= _FAILED_SAVES:
                self.fault = UserError(
                    f"cannot write checkpoints in {save.run.checkpoints}: "
                    f"{error.strerror or error}; make room there and go on with --resume auto"
                )
            return
        self._failed = 0
        save.run.event("save", save.step)

    def _mean_loss(self) -> float | None:
        """``None`` where there was no good step since the last save."""
        steps = float(self._steps)
        return float(self._loss) / steps if steps else None
