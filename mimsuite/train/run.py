"""A whole run: from a resolved recipe to a finished run directory.

recipe -> source -> loader -> method -> trainer -> run directory. Pretraining, fine-tuning and the
papers' linear-probe protocol are all this, with different methods.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from mimsuite import report
from mimsuite.batch import Batch
from mimsuite.cluster import require_single_process
from mimsuite.config import Resolved
from mimsuite.data import Normalize, TrainLoader, open_source, train_loader
from mimsuite.data.source import Source
from mimsuite.errors import MimsuiteError, Preempted, UserError
from mimsuite.methods import Method, build
from mimsuite.noise import key_of
from mimsuite.report import RunDirectory
from mimsuite.train import checkpoint
from mimsuite.train.device import choose_device
from mimsuite.train.memory import keep_freed_memory
from mimsuite.train.preempt import StopFlag
from mimsuite.train.trainer import Trainer

_PICTURE_SAMPLES = 32


@dataclass(frozen=True)
class TrainResult:
    """What a finished run leaves.

    Attributes:
        run_dir: the run directory.
        method: the trained method, in eval mode; its moving average where the recipe keeps one.
        step: optimizer steps done.
        seconds: of this start of the run.
    """

    run_dir: Path
    method: Method
    step: int
    seconds: float


def train(
    resolved: Resolved,
    out: str | Path,
    *,
    resume: str = "never",
    initialise: Callable[[Method], list[str]] | None = None,
    stop: StopFlag | None = None,
    quiet: bool = False,
) -> TrainResult:
    """Train by a recipe.

    Args:
        resolved: the recipe; its ``data.source`` names the data.
        out: run directory; must not exist yet unless resuming.
        resume: ``never``, ``auto`` (the newest sound checkpoint of ``out``, if any), or a
            checkpoint's path.
        initialise: puts weights into the fresh method and says what it did (``--init-from``); not
            called on resume.
        stop: set by a signal handler; training then saves and raises ``Preempted``.
        quiet: no banner and no progress line.

    Raises:
        UserError, DataError, DivergedError, Preempted: see :mod:`mimsuite.errors`.
    """
    begun = time.monotonic()
    keep_freed_memory()
    recipe = resolved.recipe
    require_single_process()
    device = choose_device(recipe.train.device)
    source = _open(resolved)
    start = _checkpoint_to_resume(Path(out), resume)
    torch.manual_seed(key_of(recipe.train.seed, "weights"))
    method = build(recipe)
    notes = initialise(method) if initialise is not None and start is None else []
    method.to(device)
    loader = _loader(source, resolved, start.step if start else 0)
    run = RunDirectory.create(out, resolved, resume=resume != "never")
    with _verdict(run), loader:
        checkpoint.clean(run.checkpoints)
        normalize = Normalize(recipe.augment, device)
        trainer = Trainer(
            method, resolved, run, normalize, device, loader.steps_per_epoch, stop or StopFlag()
        )
        _resume(trainer, run, start)
        for note in notes:
            run.log(note)
        if not quiet:
            _banner(trainer, loader, notes)
        pictures = _Pictures(trainer)
        every = recipe.log.every_steps
        with report.progress(
            trainer.total_steps, trainer.step, every=every, quiet=quiet
        ) as progress:
            trainer.fit(loader, progress, watch=pictures)
        pictures.at_end()
        report.save_curves(run.path)
        run.finish("DONE", step=trainer.step)
    report.write_page(run.path)
    if not quiet:
        report.next_commands(run.path)
    trained = trainer.ema.module if trainer.ema is not None else method
    return TrainResult(run.path, trained.eval(), trainer.step, time.monotonic() - begun)


def _open(resolved: Resolved) -> Source:
    data = resolved.recipe.data
    if not data.source:
        raise UserError(
            f"recipe {resolved.name} names no data: give it with --data (a folder, a list, tar "
            f"shards, or embedded:NAME)"
        )
    return open_source(
        data.source,
        data.split,
        channels=data.channels,
        verify=data.verify,
        max_pixels=data.max_pixels,
    )


def _loader(source: Source, resolved: Resolved, start_step: int) -> TrainLoader:
    recipe = resolved.recipe
    return train_loader(source, recipe, recipe.model.encoder.image_size, start_step=start_step)


def _checkpoint_to_resume(out: Path, resume: str) -> checkpoint.CheckpointState | None:
    if resume == "never":
        return None
    if resume != "auto":
        return checkpoint.read(Path(resume))
    if not (out / "checkpoints").is_dir():
        return None
    path, rejected = checkpoint.newest(out)
    for line in rejected:
        report.warn(f"passed over a damaged checkpoint: {line}")
    return None if path is None else checkpoint.read(path)


def _resume(trainer: Trainer, run: RunDirectory, start: checkpoint.CheckpointState | None) -> None:
    if start is None:
        run.cut_back(0)
        return
    trainer.load(start)
    run.cut_back(start.step)
    run.event("resume", start.step)
    run.log(f"resumed at step {start.step}")


@contextmanager
def _verdict(run: RunDirectory) -> Iterator[None]:
    """Leave PREEMPTED or FAILED in the run directory when training stops early."""
    try:
        yield
    except Preempted as stop:
        run.finish("PREEMPTED", reason=str(stop))
        raise
    except torch.OutOfMemoryError as error:
        run.finish("FAILED", reason=str(error))
        raise MimsuiteError(
            "out of memory: set train.micro_batch to a smaller number (the global batch and the "
            "result stay the same)"
        ) from None
    except (Exception, KeyboardInterrupt) as error:
        run.finish("FAILED", reason=f"{type(error).__name__}: {error}")
        raise


def _banner(trainer: Trainer, loader: TrainLoader, notes: list[str]) -> None:
    report.banner(
        trainer.resolved,
        run_dir=trainer.run.path,
        accumulation=loader.accumulation,
        devices=1,
        steps=trainer.total_steps,
        start=trainer.step,
        samples_dropped=loader.dropped,
        device=str(trainer.device),
        precision=trainer.precision.name,
        notes=notes,
        **trainer.facts(),
    )


class _Pictures:
    """Pictures of the first batch, its masks, and how it is rebuilt as training goes on."""

    def __init__(self, trainer: Trainer) -> None:
        self.trainer = trainer
        self.batch: Batch | None = None
        epochs = trainer.recipe.log.pictures_every_epochs
        self.every = None if epochs is None else max(1, round(epochs * trainer.steps_per_epoch))

    def __call__(self, batch: Batch) -> None:
        """Called with each micro-batch before its step; draws when it is time."""
        step = self.trainer.step
        if self.batch is None:
            self.batch = batch.rows(0, _PICTURE_SAMPLES)
            if step == 0:
                self._draw(None)
        elif self.every is not None and step and step % self.every == 0:
            self._draw(step)

    def at_end(self) -> None:
        if self.batch is not None:
            self._draw(self.trainer.step)

    def _draw(self, step: int | None) -> None:
        trainer, batch = self.trainer, self.batch
        assert batch is not None
        seed = trainer.recipe.train.seed
        report.first_pictures(trainer.run, trainer.method, batch, seed=seed, step=step)
