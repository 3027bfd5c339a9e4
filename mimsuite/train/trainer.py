"""The training loop: batches in, checkpoints and metrics out. It does not depend on any method."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from mimsuite.batch import Batch
from mimsuite.cluster.peers import ALONE, Peers
from mimsuite.cluster.sharding import whole
from mimsuite.config import Resolved
from mimsuite.console import warn
from mimsuite.errors import DivergedError, Preempted, UserError
from mimsuite.methods import Method, build
from mimsuite.methods.base import Progress
from mimsuite.noise import Noise
from mimsuite.report.follower import NoDirectory
from mimsuite.schedule import decay_at, rate_at
from mimsuite.train import checkpoint, replay
from mimsuite.train.average import MovingAverage
from mimsuite.train.batchnorm import sync_batchnorm
from mimsuite.train.blocks import blocks_of, prepare_blocks
from mimsuite.train.collapse import CollapseWatch
from mimsuite.train.damage_report import DamageReport
from mimsuite.train.device import peak_memory_mb
from mimsuite.train.meter import Meter
from mimsuite.train.optim import build_optimizer, set_schedules
from mimsuite.train.precision import Precision
from mimsuite.train.preempt import StopFlag
from mimsuite.train.saving import Saver
from mimsuite.train.state import (
    generator_tensors,
    load_generators,
    load_model,
    load_optimizer,
    optimizer_tensors,
)
from mimsuite.train.step import StepResult, train_step
from mimsuite.train.warm_up import warm_up

if TYPE_CHECKING:
    from mimsuite.data import TrainLoader
    from mimsuite.report import Progress as ProgressLine
    from mimsuite.report import RunDirectory


@dataclass
class Clock:
    """Time spent in each part of training since the last log line."""

    started: float
    waiting: float = 0.0
    samples: int = 0


class Trainer:
    """Trains one method, in one process of a run.

    Args:
        method: on its device; changed in place by the recipe's ``train`` section.
        precision: of the forward pass; ``None``: the recipe's, without a measurement.
        order: facts of the order of samples, which checkpoints keep.

    Attributes:
        run: run directory for metrics, events and checkpoints; set by :meth:`fit`.
        step: optimizer steps done.
        total_steps: number of steps of the training.
    """

    def __init__(
        self,
        method: Method,
        resolved: Resolved,
        normalize: Callable[[Batch], Batch],
        device: torch.device,
        steps_per_epoch: int,
        stop: StopFlag,
        peers: Peers = ALONE,
        precision: Precision | None = None,
        order: Mapping[str, int] | None = None,
    ) -> None:
        train = resolved.recipe.train
        if train.sync_batchnorm:
            sync_batchnorm(method, peers, device)
        prepare_blocks(method, train, device)
        self.peers = peers
        self.precision = precision or Precision(train.precision, device)
        half = self.precision.half
        self.replica = peers.replicate(method, blocks_of(method), train.parallel, half)
        self.method, self.resolved, self.recipe = method, resolved, resolved.recipe
        self.normalize, self.device, self.stop = normalize, device, stop
        self.steps_per_epoch, self._order = steps_per_epoch, dict(order or {})
        self.total_steps = round(self.recipe.schedule.epochs * steps_per_epoch)
        self.optimizer = build_optimizer(method, self.recipe)
        self.average = None if train.ema is None else MovingAverage(method, train.ema)
        self.meter = Meter()
        self.collapse = CollapseWatch(self.recipe.log, method.collapse_terms, self.total_steps)
        self.saver = Saver(peers, self.recipe.checkpoint, self.warn)
        self.step = 0
        self.run: RunDirectory = NoDirectory()  # replaced in `fit`
        self._signals: Callable[[int], dict[str, float]] = lambda step: {}
        self._damage = DamageReport(peers, self._event, self.warn)
        self._clock = Clock(time.monotonic())
        self._batch: Batch | None = None  # the last one, to dump if training fails
        self._stopping = self._rewound = False

    # --- the loop ---

    def fit(
        self,
        run: RunDirectory,
        loader: TrainLoader,
        progress: ProgressLine,
        watch: Callable[[Batch], None],
        signals: Callable[[int], dict[str, float]] = lambda step: {},
    ) -> None:
        """Train to the last step and save checkpoints.

        Args:
            run: run directory for metrics, events and checkpoints.
            watch: called with every micro-batch before its step, for example to draw it.
            signals: step -> more columns for its log line; called on all ranks.

        Raises:
            Preempted: a stop signal arrived; the state is saved.
            DivergedError: too many consecutive steps without a finite loss.
        """
        self.run, self._signals = run, signals
        self.method.train()
        batches = self._batches(loader, watch)
        self._clock = Clock(time.monotonic())
        if self.replica.settles and self.step < self.total_steps:
            batches = self._warm_up(batches)
        while self.step < self.total_steps:
            result = self.train_step(batches, loader.accumulation)
            self.meter.add(result)
            self.saver.add(result)
            if self._due(self.recipe.log.every_steps):
                self.write_log(progress, loader.worker_memory_mb())
                if self.meter.bad_in_a_row >= self.recipe.train.max_bad_steps:
                    self._rewind()
                    loader.start_at(self.step)
                    batches = self._batches(loader, watch)
            self.peers.report_step(self.step)
            self.peers.steps_begin()
            self.saver.look()
            flags = (
                bool(self.stop),
                self.saver.late(),
                self.collapse.must_stop,
                self.saver.fault is not None,
                self.saver.writing,
            )
            stop, late, collapsed, unwritten, writing = self.peers.vote(
                *flags, now=self.step == self.total_steps
            )
            if unwritten:
                self.saver.settle()
            if self.saver.step >= self.step - self.peers.vote_lag:
                late, writing = False, True  # in a save, or before one, that the vote did not know
            if not writing:
                self.saver.gather()
            if stop:
                self._stopping = True
                self.save()
                name = self.stop.name or "a signal to another rank"
                self.run.event("preempt", self.step, signal=name)
                raise Preempted(f"stopped by {name} after saving step {self.step}")
            if collapsed:
                self._stopping = True
                self.save()
                raise DivergedError(
                    f"stopped after saving step {self.step}, {self.collapse.note or 'collapse'}: "
                    f"raise the teacher's momentum or lower optim.lr; log.collapse=warn continues"
                )
            if late or self._due(self.recipe.checkpoint.every_steps):
                self.save()
        if self.saver.step != self.step:
            self.save()
        self.saver.settle(last=True)
        self._damage.sum_up()

    def train_step(self, batches: Iterator[Batch], accumulation: int) -> StepResult:
        """One optimizer step on the next ``accumulation`` micro-batches."""
        set_schedules(self.optimizer, self.recipe, self.step, self.steps_per_epoch)
        optim = self.recipe.optim
        clips = self.step // self.steps_per_epoch >= optim.clip_from_epoch
        result = train_step(
            self.method,
            self.optimizer,
            (next(batches) for _ in range(accumulation)),
            accumulation,
            noise=self._noise,
            precision=self.precision,
            clip_grad=optim.clip_grad if clips else None,
            clip_parts=self.method.clip_parts() if optim.clip_scope == "parts" else ("",),
            peers=self.peers,
            replica=self.replica,
            loss_scope=self.recipe.train.loss_scope,
            progress=self._progress(self.step),
            before_update=self.saver.hold,
        )
        if self.average is not None:
            self.average.update(self.method, result.skipped)
        self.step += 1
        return result

    def _warm_up(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        """Run the first micro-batch once without effect; returns all micro-batches."""
        first = next(batches)
        self.rehearse(first, self.peers.gather)
        return itertools.chain([first], batches)

    def rehearse(self, batch: Batch, gather: Callable[[Tensor], Tensor]) -> None:
        """Run forward and backward on a normalised batch without effect."""
        noise, progress = self._noise(batch), self._progress(self.step)
        warm_up(self.method, batch, noise, self.precision, gather, self.replica, progress)

    def _noise(self, batch: Batch) -> Noise:
        """The noise of a micro-batch in the coming step."""
        return Noise(self.recipe.train.seed, self.step, batch.index, batch.host_index)

    def lr_at(self, step: int) -> float:
        """Learning rate for the step after ``step`` finished ones."""
        return rate_at(self.recipe.schedule, self.recipe.lr, step, self.steps_per_epoch)

    def scheduled_at(self, step: int) -> dict[str, float]:
        """Log columns of other scheduled values: weight decay, and the method's own."""
        optim, columns = self.recipe.optim, {}
        if optim.weight_decay_end is not None:
            columns["weight_decay"] = decay_at(
                self.recipe.schedule,
                optim.weight_decay,
                optim.weight_decay_end,
                step,
                self.steps_per_epoch,
            )
        return columns | self.method.scheduled(self._progress(step))

    def _progress(self, step: int) -> Progress:
        return Progress(step, self.total_steps, self.steps_per_epoch)

    def _batches(self, loader: TrainLoader, watch: Callable[[Batch], None]) -> Iterator[Batch]:
        """Normalised micro-batches on the device; reports corrupt samples on the way."""
        stream = iter(loader)
        while True:
            begun = time.monotonic()
            loaded = next(stream)
            self._clock.waiting += time.monotonic() - begun
            self._clock.samples += len(loaded.batch)
            self._damage.add(loaded.damage, self.step)
            self.method.check(loaded.batch)
            batch = self.normalize(loaded.moved)
            watch(batch)
            self._batch = batch
            yield batch

    def _rewind(self) -> None:
        """Go back to the newest checkpoint before the first of the bad steps.

        The same steps are then repeated. This helps against transient hardware faults. If the loss
        diverges again, the recipe is the cause, and the run ends.

        Raises:
            DivergedError: there is no such checkpoint, or training was rewound before.
        """
        self.saver.settle()
        bad, here = self.meter.bad_in_a_row, self.step
        before = self.step - bad
        found = None if self._rewound else self._saved_before(before)
        if found is None:
            batch = f"bad-batch-{here - 1:08d}-rank-{self.peers.rank}.safetensors"
            assert self._batch is not None  # set by the bad steps
            replay.dump(self.run.path / batch, self._batch, here - 1)
            raise DivergedError(
                f"no finite loss in {bad} steps up to step {here}: lower optim.lr, set "
                f"optim.clip_grad, or use train.precision=fp32. `mimsuite bench replay "
                f"{self.run.path / batch}` runs the last batch again"
            )
        self.load(checkpoint.read(found, verified=True))
        self._rewound = True
        self.run.cut_back(self.step)
        self.run.event("rewind", here, to=self.step, bad_steps=bad)
        if self.peers.first:
            self.warn(f"no finite loss in {bad} steps: back from step {here} to {self.step}")

    def _saved_before(self, step: int) -> Path | None:
        """The newest sound checkpoint before a step. The first rank chooses it for all: what a rank
        can read differs between nodes, and ranks that went back to different ones would diverge."""
        name = self.peers.text_of_first(
            lambda: str(checkpoint.newest_before(self.run.checkpoints, step) or "")
        )
        return Path(name) if name else None

    # --- log ---

    def warn(self, text: str) -> None:
        """Print a warning on the terminal and in the log."""
        warn(text)
        self.run.log(f"warning: {text}")

    def _event(self, name: str, step: int, **fields: Any) -> None:
        self.run.event(name, step, **fields)

    def write_log(self, progress: ProgressLine, worker_memory_mb: float | None) -> None:
        """Write a log line with the means since the last one."""
        self._damage.collect(self.step)
        means = self.meter.read()
        now = time.monotonic()
        seconds = max(now - self._clock.started, 1e-9)
        speed = {
            "samples_per_second": self.peers.world * self._clock.samples / seconds,
            "data_wait": self._clock.waiting / seconds,
            "memory_mb": peak_memory_mb(self.device),
        }
        lr = self.lr_at(self.step - 1)
        epoch = self.step / self.steps_per_epoch
        if worker_memory_mb is not None:
            speed["worker_memory_mb"] = worker_memory_mb
        signals = self._signals(self.step)
        columns = {"epoch": epoch, "lr": lr, **self.scheduled_at(self.step - 1)}
        self.run.metrics(self.step, {**columns, **means, **speed, **signals})
        for fallen in self.collapse.add(self.step, {**means, **signals}):
            self.run.event(
                "collapse", self.step, term=fallen.term, value=fallen.value, early=fallen.early
            )
            if self.peers.first:
                self.warn(str(fallen))
        progress.update(
            self.step,
            loss=means["loss"],
            lr=lr,
            grad_norm=means["grad_norm"],
            note=self.collapse.note,
            **speed,
        )
        if means["skipped"]:
            self.run.event("skip", self.step, steps=means["skipped"])
        # The time for signals does not count for the next steps.
        self._clock = Clock(time.monotonic() if signals else now)

    # --- state ---

    def state(self) -> checkpoint.CheckpointState:
        """This rank's state, without copies; all ranks must call it."""
        return checkpoint.CheckpointState(
            step=self.step,
            document=self.resolved.document,
            model=self.method.state_dict(),
            optim=optimizer_tensors(self.optimizer),
            ema={} if self.average is None else self.average.tensors,
            ranks=self.peers.gather_tensors(generator_tensors()),
            facts={
                "scaler": self.precision.state_dict(),
                "precision": self.precision.facts(),
                "micro_batch": self.recipe.train.micro_batch,
                "meter": self.meter.state_dict(),
                "collapse": self.collapse.state_dict(),
                "steps_per_epoch": self.steps_per_epoch,
                **({"order": self._order} if self._order else {}),
                "torch": torch.__version__,
            },
            fixed={name for name, _ in self.method.named_parameters()},
        )

    def load(self, state: checkpoint.CheckpointState) -> None:
        """Continue from a checkpoint of this run.

        Raises:
            UserError: it has another method or model, or another number of steps per epoch.
        """
        saved, ours = state.document["method"]["name"], self.recipe.method.name
        if saved != ours:
            raise UserError(
                f"the checkpoint is of method '{saved}', this recipe's is '{ours}': resume with "
                f"the recipe of its run, or start from its weights with --init-from"
            )
        load_model(self.method, state.model)
        if state.facts["steps_per_epoch"] != self.steps_per_epoch:
            raise UserError(
                f"the checkpoint's epoch has {state.facts['steps_per_epoch']} steps, now it would "
                f"have {self.steps_per_epoch}: resume with the same data and global batch"
            )
        load_optimizer(self.optimizer, state.optim)
        if self.average is not None:  # one that only begins now begins as the weights
            self.average.load(state.ema or state.model)
        self.precision.load_state_dict(state.facts["scaler"])
        self.meter.load_state_dict(state.facts["meter"])
        if "collapse" in state.facts:
            self.collapse.load_state_dict(state.facts["collapse"])
        if self.peers.rank < len(state.ranks):
            load_generators(state.ranks[self.peers.rank])
        self.step = state.step
        self.saver.loaded(state.step)

    def save(self) -> None:
        """Write a checkpoint; a failure gives a warning, repeated failures end the run."""
        last = self.step == self.total_steps or self._stopping
        self.saver.save(self.run, self.state(), last=last)

    def whole_method(self, *, averaged: bool = False, copy: bool = False) -> Method:
        """The method with whole weights in this process; all ranks must call it.

        With sharded weights it is a copy, otherwise the trained method itself.

        Args:
            averaged: use the moving average's weights, if there is one. Unless ``copy`` is set,
                they overwrite the trained weights.
            copy: put the average's weights into a copy.
        """
        average = self.average if averaged else None
        if average is None and not self.replica.sharded:
            return self.method
        tensors = whole(self.method.state_dict() if average is None else average.tensors)
        method = self.method
        if self.replica.sharded or copy:
            with torch.random.fork_rng(devices=[]):
                method = build(self.recipe).to(self.device).train(self.method.training)
        load_model(method, tensors)
        return method

    def due_since_last_line(self, step: int, every: int) -> bool:
        """Whether the log line of ``step`` is the first one at or after a multiple of ``every``, or
        the last one."""
        lines = self.recipe.log.every_steps
        before = (step - 1) // lines * lines  # step of the previous log line
        return step == self.total_steps or step // every > before // every

    def _due(self, every: int | None) -> bool:
        return every is not None and (self.step % every == 0 or self.step == self.total_steps)

    def facts(self) -> dict[str, Any]:
        """Model sizes, for the banner."""
        return {
            "parameters": sum(p.numel() for p in self.method.parameters()),
            "trained": sum(p.numel() for p in self.method.parameters() if p.requires_grad),
        }
