"""When a run saves, and what happens when it cannot.

Threads copy the state on the host and write the copy; training waits for the copy, not for the
disk, and only before it applies its next step. One save is on its way at a time, and what became of
it is known at one of the next steps.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from copy import deepcopy
from dataclasses import dataclass, replace
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
from mimsuite.train.host_copy import Copying, HostCopier
from mimsuite.train.step import StepResult

if TYPE_CHECKING:
    from mimsuite.report import RunDirectory

_NICE = 10  # of the writer: hashing takes a core
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
        self._copier = HostCopier()
        self._copying: Copying | None = None
        self._writer = Background("checkpoints", nice=_NICE)
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
        """Begin to copy and write the state, by all ranks together; the save before is waited for.

        :meth:`hold` must be called before the state changes.

        Args:
            state: its tensors as this rank has them. Of the model's, those named in ``fixed`` do
                not change before; of the optimizer and the average, none does.
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

    def hold(self) -> None:
        """Before a step is applied: wait for the copy of the state, if one is under way."""
        copying, self._copying = self._copying, None
        if copying is not None:
            copying.wait()

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
        copying = self._copier.begin(
            shared, fixed=lambda group, name: group != "model" or name in state.fixed
        )
        facts = deepcopy(state.facts)
        loss, steps = self._loss, self._steps
        # The state itself would hold the originals.
        left = {g: {n: t for n, t in groups[g].items() if n not in shared[g]} for g in groups}
        ready = replace(state, model={}, optim={}, ema={}, facts=facts)

        def write() -> None:
            copies = copying.done.result()
            whole = {group: {**left[group], **copies[group]} for group in left}
            facts[retention.FIGURE] = _mean(loss, steps)
            self._write(run.checkpoints, replace(ready, **whole), reports)

        self._copying = copying
        self._on_its_way = _Save(run, state.step, loss, steps, self._writer.do(write))
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
        self.hold()
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


def _mean(loss: Tensor | float, steps: Tensor | float) -> float | None:
    """``None`` where there was no good step since the last save."""
    number = float(steps)
    return float(loss) / number if number else None
