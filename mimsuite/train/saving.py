"""When a run saves, and what happens when it cannot.

Threads copy the state on the host and write the copy; training waits for the copy, not for the
disk, and only before it applies its next step. One save is on its way at a time, and what became of
it is known at one of the next steps.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from concurrent.futures import Future
from contextlib import suppress
from copy import deepcopy
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from mimsuite.cluster.background import Background
from mimsuite.cluster.peers import Peers
from mimsuite.cluster.sharding import full_bytes, whole
from mimsuite.config.keys.shared import CheckpointSection
from mimsuite.errors import UserError
from mimsuite.train import checkpoint, retention, sharded_files
from mimsuite.train.checkpoint import CheckpointState
from mimsuite.train.host_copy import Copying, HostCopier
from mimsuite.train.sharded_files import Groups
from mimsuite.train.step import StepResult

if TYPE_CHECKING:
    from mimsuite.report import RunDirectory

_NICE = 5  # the writer takes most of a core; at a higher value loader workers would starve it
_FAILED_SAVES = 3  # in a row, until training stops: a full disk is often only full for a while


@dataclass(frozen=True)
class _Save:
    """A save on its way; the sums since the save before belong to it, unless it fails."""

    run: RunDirectory
    state: CheckpointState  # without tensors
    loss: Tensor | float
    steps: Tensor | float
    ended: Future[None] = field(default_factory=Future)


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
        self._part: Future[str] | None = None  # this rank's part, while it is written
        self._unfinished: _Save | None = None  # that waits for the parts
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
        facts = replace(state, model={}, optim={}, ema={}, facts=deepcopy(state.facts))
        save = _Save(run, facts, self._loss, self._steps)
        every = [tensor for tensors in groups.values() for tensor in tensors.values()]
        sharded = any(isinstance(tensor, DTensor) for tensor in every)
        if sharded and sum(map(full_bytes, groups.values())) > self.section.gather_gib * 2**30:
            self._begin_part(save, groups, state.fixed)
        else:
            gathered = {n: whole(t, keep=self.peers.first) for n, t in groups.items()}
            if self.peers.first:
                self._begin(save, gathered, groups, state.fixed)
        self._at, self.step = time.monotonic(), state.step
        if self.peers.first:
            self._loss, self._steps = 0.0, 0.0
        if last:
            self.settle(last=True)

    def settle(self, *, last: bool = False) -> None:
        """Wait for the save that is on its way, if one is, by all ranks together.

        Args:
            last: training ends, so a failure is final.

        Raises:
            UserError: as :meth:`save`.
        """
        self.gather()
        self.peers.run_on_first(lambda: self._settle(last))

    @property
    def writing(self) -> bool:
        """Whether this rank still writes its part of a sharded state."""
        return self._part is not None and not self._part.done()

    def gather(self) -> None:
        """Begin to put the parts of all ranks together, where there are any, by all ranks together;
        waits until all are written."""
        part, self._part = self._part, None
        if part is None:
            return
        own = part.result()
        self.hold()
        reports = self.peers.gather_texts(own, patient=True)
        if self._unfinished is not None:
            save, self._unfinished = self._unfinished, None
            self._on_its_way = replace(
                save, ended=self._writer.do(lambda: self._write(save, {}, reports))
            )

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
        if self._part is not None:
            self._part.exception()
        with suppress(UserError):
            self._settle(last=False)

    def _settle(self, last: bool) -> None:
        if self._on_its_way is not None:
            self._conclude(last)
        if self.fault is not None:
            raise self.fault

    def _begin(
        self,
        save: _Save,
        groups: Groups,
        live: Groups,
        fixed: Collection[str],
    ) -> None:
        """Copy and write a state that this rank has whole."""
        # What was put together from the parts of ranks is a copy already.
        shared = {
            group: {n: t for n, t in tensors.items() if t is live[group][n]}
            for group, tensors in groups.items()
        }
        own = {g: {n: t for n, t in groups[g].items() if n not in shared[g]} for g in groups}
        copying = self._copy(shared, lambda group, name: group != "model" or name in fixed)

        def write() -> None:
            copies = copying.done.result()
            self._write(save, {group: {**own[group], **copies[group]} for group in own}, [])

        self._on_its_way = replace(save, ended=self._writer.do(write))

    def _begin_part(self, save: _Save, groups: Groups, fixed: Collection[str]) -> None:
        """Copy and write this rank's part; see :mod:`mimsuite.train.sharded_files`."""
        lasting = {f"model/{name}" for name in fixed}
        copying = self._copy(
            {"": sharded_files.pieces_of(groups, self.peers.rank)},
            lambda _, key: not key.startswith("model/") or key in lasting,
        )
        root, step = save.run.checkpoints, save.state.step

        def write() -> str:
            pieces = copying.done.result()[""]
            try:
                if self.peers.first:
                    checkpoint.need_space(root)
            except OSError as error:
                return sharded_files.failure(0, error)
            folder = checkpoint.folder_of_parts(root, step)
            return sharded_files.write_part(folder, pieces, self.peers.rank, self.peers.world)

        self._part = self._writer.do(write)
        self._unfinished = save if self.peers.first else None

    def _copy(self, groups: Groups, fixed: Callable[[str, str], bool]) -> Copying:
        self._copying = self._copier.begin(groups, fixed=fixed)
        return self._copying

    def _write(self, save: _Save, groups: Groups, reports: list[str]) -> None:
        """In the writer's thread."""
        section, root = self.section, save.run.checkpoints
        facts = {**save.state.facts, retention.FIGURE: _mean(save.loss, save.steps)}
        state = replace(
            save.state,
            model=groups.get("model", {}),
            optim=groups.get("optim", {}),
            ema=groups.get("ema", {}),
            facts=facts,
        )
        checkpoint.save(root, state, reports)
        retention.prune(
            root,
            save.state.step,
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
            self.warn(f"checkpoint at step {save.state.step} not written: {error}")
            if last or self._failed >= _FAILED_SAVES:
                self.fault = UserError(
                    f"cannot write checkpoints in {save.run.checkpoints}: "
                    f"{error.strerror or error}; make room there and go on with --resume auto"
                )
            return
        self._failed = 0
        save.run.event("save", save.state.step)


def _mean(loss: Tensor | float, steps: Tensor | float) -> float | None:
    """``None`` where there was no good step since the last save."""
    number = float(steps)
    return float(loss) / number if number else None
