"""A whole run: from a resolved recipe to a finished run directory.

recipe -> source -> loader -> method -> trainer -> run directory. Pretraining, fine-tuning and the
papers' linear-probe protocol are all this, with different methods.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from mimsuite import report
from mimsuite.batch import Batch
from mimsuite.cluster import find_rank_info
from mimsuite.cluster.meeting import join
from mimsuite.cluster.peers import Peers
from mimsuite.config import Resolved
from mimsuite.config.keys.shared import Recipe
from mimsuite.data import TrainLoader, open_training_set, train_loader, views_of
from mimsuite.data.loading.train_loader import new_layout
from mimsuite.data.order.layout import layout_of_run
from mimsuite.data.packing.input_range import InputRange
from mimsuite.data.packing.inspection import unused_in
from mimsuite.data.source import Source
from mimsuite.data.unused import Unused
from mimsuite.data.views import Views
from mimsuite.errors import MimsuiteError, Preempted, UserError
from mimsuite.methods import Method, build
from mimsuite.noise import key_of
from mimsuite.report import RunDirectory
from mimsuite.report.follower import Follower
from mimsuite.report.writers import require_packages
from mimsuite.train import checkpoint, micro_batch
from mimsuite.train.determinism import same_bits
from mimsuite.train.device import choose_device
from mimsuite.train.lock import RunLock
from mimsuite.train.memory import is_out_of_memory, keep_freed_memory, out_of_memory
from mimsuite.train.online_probe import OnlineProbe
from mimsuite.train.pictures import Pictures
from mimsuite.train.precision import Precision, precision_of
from mimsuite.train.preempt import StopFlag
from mimsuite.train.signals import Signals
from mimsuite.train.state import seed_generators
from mimsuite.train.trainer import Trainer


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
    unused: Unused | None = None,
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
        unused: what the source holds and is not used, where somebody has looked; None: looked for.
        stop: set by a signal handler; training then saves and raises ``Preempted``.
        quiet: no banner and no progress line.

    Raises:
        UserError, DataError, DivergedError, Preempted: see :mod:`mimsuite.errors`.
    """
    info = find_rank_info()
    recipe = resolved.recipe
    device = choose_device(recipe.train.device, info.local_rank, info.world)
    facts = {"train.precision": Precision(recipe.train.precision, device).name}
    stop = StopFlag() if stop is None else stop

    def stopped() -> None:
        if stop:
            raise Preempted(f"stopped by {stop.name} before all ranks had come: nothing was done")

    peers = join(info, device, recipe.train.timeout_seconds, stopped, facts)
    quiet = quiet or not peers.first
    with peers.named_faults(), same_bits(recipe.train.deterministic), RunLock() as lock:
        session = Session(resolved, Path(out), resume, device, peers, lock, stop, quiet, unused)
        return _train(session, initialise)


@dataclass(frozen=True)
class Session:
    """One start of a run, as one of its processes.

    Attributes:
        resolved: the recipe.
        out: the run directory.
        resume: ``never``, ``auto`` or a checkpoint's path.
        device: of this process.
        lock: of the run directory, once it is taken.
        stop: says whether a stop signal came.
        quiet: no banner and no progress line.
        unused: what the source holds and is not used, where the caller has looked.
    """

    resolved: Resolved
    out: Path
    resume: str
    device: torch.device
    peers: Peers
    lock: RunLock
    stop: StopFlag
    quiet: bool
    unused: Unused | None

    @property
    def recipe(self) -> Recipe:
        return self.resolved.recipe


@keep_freed_memory()
def _train(session: Session, initialise: Callable[[Method], list[str]] | None) -> TrainResult:
    begun = time.monotonic()
    recipe, peers = session.recipe, session.peers
    if recipe.train.threads is not None:
        torch.set_num_threads(recipe.train.threads)
    _require_one_recipe(session)
    peers.run_on_first(lambda: require_packages(recipe.log.writers))
    start = _checkpoint_to_resume(session)
    precision = _precision(session, start)
    automatic = recipe.train.micro_batch == "auto"
    if automatic:
        before = None if start is None else start.facts.get("micro_batch")
        session = _sized(session, _micro_batch(session, precision, before))
        recipe = session.recipe
    method, notes = _build(session, initialise if start is None else None)
    views = views_of(recipe)
    source = _open_source(session)
    make_loader = partial(
        train_loader,
        source,
        views=views,
        start_step=start.step if start else 0,
        rank=peers.rank,
        world=peers.world,
        device=session.device,
        layout=layout_of_run(recipe, start.document, start.facts) if start else None,
    )
    loader = make_loader(recipe)
    normalize = views.normalizer(session.device)
    notes += method.setup(None if start else lambda: _first_batches(recipe, views, normalize))
    trainer = Trainer(
        method,
        session.resolved,
        normalize,
        session.device,
        loader.steps_per_epoch,
        session.stop,
        peers,
        precision,
        order=loader.layout.facts(),
    )
    if automatic and start is None:
        size = micro_batch.tried(trainer, loader.micro_batch)
        session = _sized(session, size)
        trainer.resolved, trainer.recipe = session.resolved, session.recipe
        recipe = session.recipe
        loader = make_loader(recipe)
    if start is not None:
        trainer.load(start)
        notes += session.resolved.changed_since(start.document)
        notes += _other_lanes(loader, source, recipe)
    resumed = start is not None
    del start  # and with it the files of the checkpoint
    probe = OnlineProbe(trainer)
    unused, warnings = _look(session, source, views, fresh=not resumed)
    warnings += [] if precision.warning is None else [precision.warning]
    # Everything that a wrong command could upset is behind us: only now is something written.
    chosen: dict[str, Any] = {"precision": precision.facts()}
    chosen |= {"micro_batch": loader.micro_batch} if automatic else {}
    run = _open_run(session, chosen)
    with _verdict(run, trainer, loader.micro_batch), peers.named_faults(), loader:
        if peers.first:
            checkpoint.clean(run.checkpoints)
        run.cut_back(trainer.step)
        if resumed:
            run.event("resume", trainer.step)
        if unused:
            run.event("unused", trainer.step, unused=unused.as_json())
        facts = trainer.facts() | loader.layout.facts() | chosen
        run.event("start", trainer.step, samples=len(source), **facts)
        for note in notes:
            run.log(note)
        if not session.quiet:
            _banner(trainer, run, loader, source, unused, notes)
        for warning in warnings if peers.first else ():
            report.warn(warning)
            run.log(f"warning: {warning}")
        _fit(session, trainer, run, loader, probe)
        peers.run_on_first(lambda: _finish(trainer, run))
    if not session.quiet:
        report.next_commands(run.path)
    trained = trainer.whole_method(averaged=True)
    return TrainResult(run.path, trained.eval(), trainer.step, time.monotonic() - begun)


def _precision(session: Session, start: checkpoint.CheckpointState | None) -> Precision:
    """The run's precision: the first rank measures where that is needed, the others follow."""
    recipe, device, peers = session.recipe, session.device, session.peers
    before = None if start is None else start.facts.get("precision", {})
    found: list[Precision] = []

    def measure() -> str:
        found.append(precision_of(recipe, device, before))
        return json.dumps(found[0].facts())

    facts = peers.text_of_first(measure)
    return found[0] if found else precision_of(recipe, device, json.loads(facts))


def _micro_batch(session: Session, precision: Precision, before: int | None) -> int:
    """``train.micro_batch: auto``: as before on resume where that is possible, else the largest
    that fits on every rank."""
    recipe, peers = session.recipe, session.peers
    if before in micro_batch.sizes_of(recipe, peers.world):
        return before
    own = micro_batch.estimated(recipe, session.device, peers.world, precision.name)
    return min(int(size) for size in peers.gather_texts(str(own)))


def _sized(session: Session, size: int) -> Session:
    """The session with a micro-batch of this size; the recipe as written stays ``auto``."""
    recipe = micro_batch.with_micro_batch(session.recipe, size)
    return replace(session, resolved=replace(session.resolved, recipe=recipe))


def _build(
    session: Session, initialise: Callable[[Method], list[str]] | None
) -> tuple[Method, list[str]]:
    """The method on its device, and what ``initialise`` says of its weights."""
    seed, peers = session.recipe.train.seed, session.peers
    seed_generators(key_of(seed, "weights"))
    method = build(session.recipe)
    notes = initialise(method) if initialise is not None else []
    if peers.world > 1:  # third-party code that draws should not draw the same on all ranks
        seed_generators(key_of(seed, "rank", peers.rank))
    return method.to(session.device), notes


def _look(
    session: Session, source: Source, views: Views, *, fresh: bool
) -> tuple[Unused, list[str]]:
    """Content of the source that is not used, and warnings of it; empty on the other ranks.

    A resumed run has reported it already, and opens no shard twice.

    Raises:
        UserError: a sample does not fit the recipe.
    """
    unused, warnings = Unused(), list[str]()

    def look() -> None:
        if session.unused is not None:  # the caller has looked
            unused.update(session.unused)
            return
        values = InputRange(views)
        unused.update(unused_in(source, views, also=values.add))
        warnings.extend(values.warnings(source.name))

    if fresh:
        session.peers.run_on_first(look)
    return unused, warnings


def _other_lanes(loader: TrainLoader, source: Source, recipe: Recipe) -> list[str]:
    """A line where the run continues with other lanes than a new one would have."""
    own, new = loader.layout.lanes, new_layout(source, recipe).lanes
    if own == new:
        return []
    return [f"samples are read in {own} lanes, as the run began (a new run would have {new})"]


def _fit(
    session: Session, trainer: Trainer, run: RunDirectory, loader: TrainLoader, probe: OnlineProbe
) -> None:
    """Train to the last step, with pictures, signals and the online probe."""
    pictures, signals = Pictures(trainer, run), Signals(trainer)
    if signals.note is not None:
        run.log(signals.note)
    line = report.progress(
        trainer.total_steps,
        trainer.step,
        every=session.recipe.log.every_steps,
        quiet=session.quiet,
        log=run.log,
    )
    with closing(trainer.saver), line as progress:
        measured = lambda step: signals(step) | probe(step)  # noqa: E731
        trainer.fit(run, loader, progress, watch=pictures, signals=measured)
    pictures.at_end()


def _open_source(session: Session) -> Source:
    """By the first rank before the others, which then find the indexes that it had to make."""
    opened: list[Source] = []
    session.peers.run_on_first(lambda: opened.append(open_training_set(session.recipe)))
    return opened[0] if opened else open_training_set(session.recipe)


def _first_batches(
    recipe: Recipe, views: Views, normalize: Callable[[Batch], Batch]
) -> Iterator[Batch]:
    """The training stream from its start, the same on every rank."""
    with train_loader(open_training_set(recipe), recipe, views) as loader:
        for loaded in loader:
            yield normalize(loaded.batch)


def _open_run(session: Session, chosen: dict[str, Any]) -> RunDirectory:
    """The run directory, made and locked by the first rank; the others write a log in it."""
    made: list[RunDirectory] = []

    def create() -> None:
        resume = session.resume != "never"
        out, resolved = session.out, session.resolved
        made.append(RunDirectory.create(out, resolved, resume=resume, chosen=chosen))
        session.lock.take(session.out)

    session.peers.run_on_first(create)
    return made[0] if made else Follower(session.out, session.peers.rank)


def _finish(trainer: Trainer, run: RunDirectory) -> None:
    run.finish("DONE", step=trainer.step)
    report.write_page(run.path)


def _require_one_recipe(session: Session) -> None:
    """Ranks that train by different recipes would wait for each other or, worse, not."""
    digests = session.peers.gather_texts(f"{key_of(session.resolved.yaml()):016x}")
    odd = [rank for rank, digest in enumerate(digests) if digest != digests[0]]
    if odd:
        raise UserError(f"rank {odd[0]} was started with another recipe or keys than rank 0")


def _checkpoint_to_resume(session: Session) -> checkpoint.CheckpointState | None:
    """Found and verified by the first rank, once no other run can change it; read by all.

    Raises:
        UserError: the checkpoint, or every one of the run, is damaged or cannot be read.
    """
    out, resume = session.out, session.resume

    def find() -> str:
        if resume != "never" and (out / "config.yaml").exists():
            session.lock.take(out)
        if resume == "auto" and (out / "checkpoints").is_dir():
            path, rejected = checkpoint.newest(out)
            if rejected and path is None:  # a new start would erase the metrics of the run
                raise UserError(
                    f"run {out} has no checkpoint that can be read, so it is left as it is: "
                    f"{'; '.join(rejected)}. Mend the disk and resume, or choose another --out"
                )
            for line in rejected:
                report.warn(f"passed over a damaged checkpoint: {line}")
            return str(path or "")
        if resume in ("never", "auto"):
            return ""
        checkpoint.require_sound(Path(resume))
        return resume

    name = session.peers.text_of_first(find)
    return checkpoint.read(Path(name), verified=True) if name else None


@contextmanager
def _verdict(run: RunDirectory, trainer: Trainer, samples: int) -> Iterator[None]:
    """Leave PREEMPTED or FAILED in the run directory when training stops early."""
    try:
        yield
    except Preempted as stop:
        run.finish("PREEMPTED", step=trainer.step, reason=str(stop))
        trainer.stop.ignore()
        with suppress(RuntimeError):  # none leaves before all are here: srun then ends the others
            trainer.peers.any_rank(True)
        raise
    except (Exception, KeyboardInterrupt) as error:
        if is_out_of_memory(error):
            reason = out_of_memory(trainer.device, trainer.recipe.train, samples, trainer.step)
            run.finish("FAILED", step=trainer.step, reason=reason)
            raise MimsuiteError(reason) from None
        run.finish("FAILED", step=trainer.step, reason=f"{type(error).__name__}: {error}")
        raise


def _banner(
    trainer: Trainer,
    run: RunDirectory,
    loader: TrainLoader,
    source: Source,
    unused: Unused,
    notes: list[str],
) -> None:
    report.banner(
        trainer.resolved,
        run_dir=run.path,
        samples=len(source),
        unused=unused.lines(),
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
