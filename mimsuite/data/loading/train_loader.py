"""The training loader: endless micro-batches, the same for any number of workers and ranks."""

from __future__ import annotations

import atexit
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from math import prod
from types import TracebackType
from typing import Any

import torch
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from mimsuite.batch import Batch
from mimsuite.config.keys.shared import Recipe
from mimsuite.data.damage import Damage, DamageCount
from mimsuite.data.loading.ahead import Ahead
from mimsuite.data.loading.batch_piece import Part, PartBuilder
from mimsuite.data.loading.carrier import Carried, Carrier
from mimsuite.data.loading.dealing import Deal, deal_of
from mimsuite.data.loading.lanes import LaneReader
from mimsuite.data.order.layout import Layout, layout_of
from mimsuite.data.order.mixture import Mixture
from mimsuite.data.order.sample_order import Order, Plan, share_of
from mimsuite.data.source import Source
from mimsuite.data.sources.joined import JoinedSource
from mimsuite.data.views import Views, views_of
from mimsuite.data.workers import LOST, resident_mb, start_worker, worker_died
from mimsuite.errors import DataError, MimsuiteError
from mimsuite.waiting import waiting

_PREFETCH = 2  # pieces that each worker prepares ahead
_AHEAD = 2  # micro-batches kept ready on the device
_PATIENCE = 10.0  # seconds that closing waits for a worker's current piece
_OPEN: weakref.WeakSet[TrainLoader] = weakref.WeakSet()


@atexit.register
def _close_all() -> None:
    """Close open loaders: workers ignore SIGTERM, so Python would wait for them forever."""
    for loader in list(_OPEN):
        loader.close()


@dataclass(frozen=True)
class Loaded:
    """A micro-batch, images as uint8 (or float32 in [0, 1] for more than 8 bits).

    Attributes:
        batch: the batch on the CPU, pinned if training runs on CUDA.
        damage: corrupt samples not reported before.
        moved: the batch on the loader's device.
    """

    batch: Batch
    damage: list[Damage]
    moved: Batch


def train_loader(
    source: Source,
    recipe: Recipe,
    views: Views | None = None,
    *,
    start_step: int = 0,
    rank: int = 0,
    world: int = 1,
    device: torch.device | str = "cpu",
    layout: Layout | None = None,
) -> TrainLoader:
    """The training loader of a recipe, from any global step on.

    Args:
        views: None: the views of the recipe's modality.
        start_step: optimizer steps already done; their samples are not read.
        rank: number of this process out of ``world``; each reads its rows of every global batch.
        device: if it is a GPU, batches are copied to it ahead of training.
        layout: of the run that is resumed; None: as a new run chooses.

    Raises:
        UserError: batch size, processes and set size do not fit together, or the channels of
            data, model and ``augment.mean`` differ.
    """
    plan = _order(source, recipe, layout)
    share = share_of(plan, rank, world, recipe.train.most_at_once)
    views = views or views_of(recipe)
    views.check(source)
    reader = LaneReader(source, plan, views)
    numbers = sum(prod(shape) for shape in views.shapes().values())
    deal = deal_of(share, recipe.data.workers, numbers, by_lane=source.fetched)
    return TrainLoader(reader, deal, start_step=start_step, device=torch.device(device))


class TrainLoader:
    """Iterating yields :class:`Loaded` micro-batches without end, over all epochs.

    ``accumulation`` consecutive micro-batches make one optimizer step. Workers make them and a
    thread copies them to the device, so the time spent in ``next`` is time spent waiting for data.
    Without workers, ``next`` does all the work. A context manager: leaving it ends thread and
    workers.

    Attributes:
        accumulation: micro-batches per optimizer step.
        micro_batch: samples per micro-batch.
        steps_per_epoch: optimizer steps per epoch.
        dropped: samples that each epoch leaves out; different ones each time.
        repeated: samples that each epoch reads twice; different ones each time.
        workers: worker processes.
        damaged: all corrupt samples found so far.
        layout: by which samples are read.
    """

    def __init__(
        self, reader: LaneReader, deal: Deal, *, start_step: int, device: torch.device
    ) -> None:
        plan, share = reader.plan, deal.share
        self.steps_per_epoch = plan.steps_per_epoch
        self.dropped, self.repeated = plan.dropped, plan.repeated
        self.layout = Layout(plan.lanes, plan.block)
        self.accumulation, self.micro_batch = share.accumulation, share.micro_batch
        self._labelled, self._device = reader.source.annotated, device
        self._count = DamageCount(plan.total)
        self.workers, self._pieces = deal.workers, deal.pieces
        self._dataset = _Stream(reader, deal, start_step)
        self._parts: Iterator[Part] | None = None
        self._ahead: Ahead[Carried] | None = None

    @property
    def damaged(self) -> list[Damage]:
        return list(self._count.found.values())

    def worker_memory_mb(self) -> float | None:
        """Resident memory of the workers in MiB; None without workers, or if unknown."""
        workers = getattr(self._parts, "_workers", ())  # torch's iterator
        return resident_mb(worker.pid for worker in workers)

    def start_at(self, step: int) -> None:
        """Set the step at which the next iteration starts."""
        self.close()
        self._dataset.start_step = step

    def __iter__(self) -> Iterator[Loaded]:
        """Micro-batches from the start step on.

        Raises:
            DataError: too many corrupt samples, or a worker died.
            UserError: the recipe does not accept a sample.
        """
        self.close()
        self._parts = iter(
            DataLoader(
                self._dataset,
                batch_size=None,
                num_workers=self.workers,
                prefetch_factor=_PREFETCH if self.workers else None,
                worker_init_fn=start_worker,
                generator=torch.Generator(),  # otherwise torch uses the global generator
            )
        )
        _OPEN.add(self)
        mine = id(self._parts)  # only the id: this frame must not keep the workers alive
        take: Callable[[], Carried] = Carrier(
            self._parts, self._pieces, labelled=self._labelled, device=self._device
        )
        if self.workers:
            self._ahead = Ahead(take, _AHEAD)
            take = self._ahead.take
        try:
            while self._parts is not None:
                carried = _next(take)
                damage = self._count.add(carried.damage)
                if carried.fault is not None:
                    raise carried.fault
                assert carried.batch is not None
                yield Loaded(carried.batch, damage, carried.received())
                del carried  # free its memory for the next one
        finally:
            del take
            if id(self._parts) == mine:  # otherwise a new iteration has started
                self.close()

    def close(self) -> None:
        """End thread and workers; a new iteration starts again at ``start_step``."""
        ahead, self._ahead = self._ahead, None
        if ahead is not None and not ahead.close(_PATIENCE):
            for worker in getattr(self._parts, "_workers", ()):
                with suppress(RuntimeError):  # torch reports the killed worker
                    worker.kill()  # stuck in a read: joining it would block forever
                    worker.join(_PATIENCE)
        if self.workers and self._parts is not None:
            # Explicitly: a suspended frame or a stored exception may keep the iterator alive.
            self._parts._shutdown_workers()  # type: ignore[attr-defined]  # torch's iterator
        self._parts = None

    def __enter__(self) -> TrainLoader:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class _Stream(IterableDataset[Part]):
    """Pieces of micro-batches; torch takes them from the workers round-robin, as dealt."""

    def __init__(self, reader: LaneReader, deal: Deal, start_step: int) -> None:
        self.reader, self.deal, self.start_step = reader, deal, start_step

    def __iter__(self) -> Iterator[Part]:
        worker = get_worker_info()
        first, every = (worker.id, worker.num_workers) if worker else (0, 1)
        for number in count(first, every):
            micro, piece = divmod(number, self.deal.pieces)
            step, micro = divmod(micro, self.deal.share.accumulation)
            yield self._part(self.start_step + step, micro, piece)

    def _part(self, step: int, micro: int, piece: int) -> Part:
        part = PartBuilder()
        rows = self.deal.share.rows(micro)
        try:
            for place in self.deal.places(micro, piece).tolist():
                row = int(rows[place])
                drawn = self.reader.draw(step, *divmod(row, self.deal.share.all_lanes))
                part.add(place, row, drawn.key, drawn.label, drawn.views)
                part.damaged(place, drawn.damage)
            return part.done()
        except MimsuiteError as fault:
            # The main process raises it; raised here, torch would wrap it in a traceback.
            return part.done(fault)


def _next(take: Callable[[], Carried]) -> Carried:
    try:
        with waiting("samples of the data loader"):
            return take()
    except LOST as fault:
        if (line := worker_died(fault)) is None:
            raise
        raise DataError(line) from None


def new_layout(source: Source, recipe: Recipe) -> Layout:
    """The lanes and blocks of a run that begins now."""
    return layout_of(recipe, [len(one) for one in _mixed(source, recipe)])


def _mixed(source: Source, recipe: Recipe) -> Sequence[Source]:
    return source.sources if recipe.data.mixture and isinstance(source, JoinedSource) else ()


def _order(source: Source, recipe: Recipe, layout: Layout | None) -> Order:
    mixed = _mixed(source, recipe)
    layout = layout or new_layout(source, recipe)
    keys: dict[str, Any] = {
        "seed": recipe.train.seed,
        "global_batch": recipe.train.global_batch,
        "lanes": layout.lanes,
        "block": layout.block,
    }
    if not mixed:
        return Plan(source.counts, tail=recipe.data.tail, name=source.name, **keys)
    weights = [one.weight for one in recipe.data.mixture or ()]
    return Mixture([one.counts for one in mixed], weights, [one.name for one in mixed], **keys)
