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
from mimsuite.cluster import find_place
from mimsuite.cluster.peers import Peers, join
from mimsuite.config import Resolved
from mimsuite.data import TrainLoader, open_training_set, train_loader, views_of
from mimsuite.errors import MimsuiteError, Preempted, UserError
from mimsuite.methods import Method, build
from mimsuite.noise import key_of
from mimsuite.report import RunDirectory
from mimsuite.report.follower import Follower
from mimsuite.train import checkpoint
from mimsuite.train.device import choose_device
from mimsuite.train.memory import keep_freed_memory
from mimsuite.train.preempt import StopFlag
from mimsuite.train.state import seed_generators
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
    recipe = resolved.recipe
    place = find_place()
    device = choose_device(recipe.train.device, place.local_rank)
    peers = join(place, device, recipe.train.timeout_seconds)
    with peers.named_faults():
        return _train(resolved, Path(out), device, peers, resume, initialise, stop, quiet)


def _train(
    resolved: Resolved,
    out: Path,
    device: torch.device,
    peers: Peers,
    resume: str,
    initialise: Callable[[Method], list[str]] | None,
    stop: StopFlag | None,
    quiet: bool,
) -> TrainResult:
    begun = time.monotonic()
    keep_freed_memory()
    recipe = resolved.recipe
    quiet = quiet or not peers.first
    if recipe.train.threads is not None:
        torch.set_num_threads(recipe.train.threads)
    _require_one_recipe(resolved, peers)
    start = _checkpoint_to_resume(out, resume, peers)
    seed_generators(key_of(recipe.train.seed, "weights"))
    method = build(recipe)
    notes = initialise(method) if initialise is not None and start is None else []
    if peers.world > 1:  # third-party code that draws should not draw the same on all ranks
        seed_generators(key_of(recipe.train.seed, "rank", peers.rank))
    method.to(device)
    views = views_of(recipe)
    loader = train_loader(
        open_training_set(recipe),
        recipe,
        views,
        start_step=start.step if start else 0,
        rank=peers.rank,
        world=peers.world,
    )
    normalize = views.normalizer(device)
    trainer = Trainer(
        method,
        resolved,
        normalize,
        device,
        loader.steps_per_epoch,
        StopFlag() if stop is None else stop,
        peers,
    )
    if start is not None:
        trainer.load(start)
    # Everything that a wrong command could upset is behind us: only now is something written.
    run = _open_run(out, resolved, peers, resume)
    with _verdict(run, trainer), loader:
        if peers.first:
            checkpoint.clean(run.checkpoints)
        run.cut_back(trainer.step)
        if start is not None:
            run.event("resume", trainer.step)
        run.event("start", trainer.step, **trainer.facts())
        for note in notes:
            run.log(note)
        if not quiet:
            _banner(trainer, run, loader, notes)
        pictures = _Pictures(trainer, run)
        every = recipe.log.every_steps
        with report.progress(
            trainer.total_steps, trainer.step, every=every, quiet=quiet, log=run.log
        ) as progress:
            trainer.fit(run, loader, progress, watch=pictures)
        peers.on_first(lambda: _finish(trainer, run, pictures))
    if not quiet:
        report.next_commands(run.path)
    trained = trainer.ema.module if trainer.ema is not None else method
    return TrainResult(run.path, trained.eval(), trainer.step, time.monotonic() - begun)


def _open_run(out: Path, resolved: Resolved, peers: Peers, resume: str) -> RunDirectory:
    """The run directory, made by the first rank; the others write a log in it."""
    made: list[RunDirectory] = []
    peers.on_first(
        lambda: made.append(RunDirectory.create(out, resolved, resume=resume != "never"))
    )
    return made[0] if made else Follower(out, peers.rank)


def _finish(trainer: Trainer, run: RunDirectory, pictures: _Pictures) -> None:
    pictures.at_end()
    report.save_curves(run.path)
    run.finish("DONE", step=trainer.step)
    report.write_page(run.path)


def _require_one_recipe(resolved: Resolved, peers: Peers) -> None:
    """Ranks that train by different recipes would wait for each other or, worse, not."""
    digests = peers.texts(f"{key_of(resolved.yaml()):016x}")
    odd = [rank for rank, digest in enumerate(digests) if digest != digests[0]]
    if odd:
        raise UserError(f"rank {odd[0]} was started with another recipe or keys than rank 0")


def _checkpoint_to_resume(
    out: Path, resume: str, peers: Peers
) -> checkpoint.CheckpointState | None:
    if resume == "never":
        return None
    if resume != "auto":
        return checkpoint.read(Path(resume))
    if not (out / "checkpoints").is_dir():
        return None
    path, rejected = checkpoint.newest(out)
    for line in rejected if peers.first else ():
        report.warn(f"passed over a damaged checkpoint: {line}")
    return None if path is None else checkpoint.read(path, verified=True)


@contextmanager
def _verdict(run: RunDirectory, trainer: Trainer) -> Iterator[None]:
    """Leave PREEMPTED or FAILED in the run directory when training stops early."""
    try:
        yield
    except Preempted as stop:
        run.finish("PREEMPTED", step=trainer.step, reason=str(stop))
        raise
    except torch.OutOfMemoryError as error:
        run.finish("FAILED", step=trainer.step, reason=str(error))
        raise MimsuiteError(
            "out of memory: set train.micro_batch to a smaller number (the global batch and the "
            "result stay the same)"
        ) from None
    except (Exception, KeyboardInterrupt) as error:
        run.finish("FAILED", step=trainer.step, reason=f"{type(error).__name__}: {error}")
        raise


def _banner(trainer: Trainer, run: RunDirectory, loader: TrainLoader, notes: list[str]) -> None:
    report.banner(
        trainer.resolved,
        run_dir=run.path,
        accumulation=loader.accumulation,
        devices=trainer.peers.world,
        steps=trainer.total_steps,
        start=trainer.step,
        samples_dropped=loader.dropped,
        samples_repeated=loader.repeated,
        device=str(trainer.device),
        precision=trainer.precision.name,
        notes=notes,
        log=run.log,
        **trainer.facts(),
    )


class _Pictures:
    """Pictures of the first batch, its masks, and how it is rebuilt as training goes on."""

    def __init__(self, trainer: Trainer, run: RunDirectory) -> None:
        self.trainer, self.run = trainer, run
        self.batch: Batch | None = None
        epochs = trainer.recipe.log.pictures_every_epochs
        self.every = None if epochs is None else max(1, round(epochs * trainer.steps_per_epoch))

    def __call__(self, batch: Batch) -> None:
        """Called with each micro-batch before its step; draws when it is time."""
        if not self.trainer.peers.first:
            return
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
        report.first_pictures(self.run, trainer.method, batch, seed=seed, step=step)
