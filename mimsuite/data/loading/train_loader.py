"""The training stream: micro-batches without end, the same for any number of workers and ranks."""

from __future__ import annotations

import atexit
import weakref
from collections.abc import Callable, Iterator
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
from mimsuite.data.order.mixture import Mixture
from mimsuite.data.order.sample_order import Order, Plan, share_of
from mimsuite.data.source import Source
from mimsuite.data.sources.joined import Joined
from mimsuite.data.views import Views, views_of
from mimsuite.data.workers import resident_mb, start_worker, worker_died
from mimsuite.errors import DataError, MimsuiteError
from mimsuite.waiting import waiting

_PREFETCH = 2  # pieces that each worker prepares ahead
_AHEAD = 2  # micro-batches that wait for training, joined and on the device
_PATIENCE = 10.0  # seconds for a worker to hand over what it reads, when the loader is closed
_OPEN: weakref.WeakSet[TrainLoader] = weakref.WeakSet()


@atexit.register
def _close_all() -> None:
    """Workers are deaf to the signal by which Python ends them at exit, and would be waited for."""
    for loader in list(_OPEN):
        loader.close()


@dataclass(frozen=True)
class Loaded:
    """A micro-batch, images as uint8 (or float32 in [0, 1] for more than 8 bits).

    Attributes:
        batch: pinned where training runs on CUDA.
        damage: corrupt samples met in it for the first time; each is reported once.
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
) -> TrainLoader:
    """The stream of a recipe, from any global step on.

    Args:
        views: of the samples; None: those of the recipe's modality.
        start_step: optimizer steps that are done; nothing before it is read.
        rank: of ``world`` processes; each reads its rows of every global batch.
        device: to which batches are sent ahead, if it is a GPU.

    Raises:
        UserError: batch, processes and the set do not fit together, or the channels of
            data, model and statistics differ.
    """
    plan = _order(source, recipe)
    share = share_of(plan, rank, world, recipe.train.micro_batch)
    views = views or views_of(recipe)
    views.check(source)
    reader = LaneReader(source, plan, views)
    numbers = sum(prod(shape) for shape in views.shapes().values())
    deal = deal_of(share, recipe.data.workers, numbers, by_lane=source.fetched)
    return TrainLoader(reader, deal, start_step=start_step, device=torch.device(device))


class TrainLoader:
    """Iterating yields :class:`Loaded` micro-batches, endless over epochs.

    ``accumulation`` consecutive ones are one optimizer step. Workers make them, and a thread takes
    them from there and sends them to the device, so that asking for one is waiting for data and
    nothing else. Without workers all is done when it is asked for. A context manager: leaving it
    ends thread and workers.

    Attributes:
        accumulation: micro-batches of a step.
        micro_batch: samples of each.
        steps_per_epoch: optimizer steps.
        dropped: samples that an epoch leaves out, other ones each time.
        repeated: samples that an epoch reads twice, likewise.
        workers: processes that read.
        damaged: all corrupt samples found so far.
    """

    def __init__(
        self, reader: LaneReader, deal: Deal, *, start_step: int, device: torch.device
    ) -> None:
        plan, share = reader.plan, deal.share
        self.steps_per_epoch = plan.steps_per_epoch
        self.dropped, self.repeated = plan.dropped, plan.repeated
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
        """MiB in the memory of the workers; None without workers, or where it is not known."""
        workers = getattr(self._parts, "_workers", ())  # of torch's iterator
        return resident_mb(worker.pid for worker in workers)

    def start_at(self, step: int) -> None:
        """Where the next iteration begins."""
        self.close()
        self._dataset.start_step = step

    def __iter__(self) -> Iterator[Loaded]:
        """Micro-batches from the start step on.

        Raises:
            DataError: too many corrupt samples, or a worker died.
            UserError: a sample that the recipe cannot take.
        """
        self.close()
        self._parts = iter(
            DataLoader(
                self._dataset,
                batch_size=None,
                num_workers=self.workers,
                prefetch_factor=_PREFETCH if self.workers else None,
                worker_init_fn=start_worker,
                generator=torch.Generator(),  # else it would draw from the global one
            )
        )
        _OPEN.add(self)
        mine = id(self._parts)  # not itself: this frame must not keep the workers
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
                del carried  # its memory is the next one's
        finally:
            del take
            if id(self._parts) == mine:  # else iterating has begun anew in the meantime
                self.close()

    def close(self) -> None:
        """End thread and workers; iterating again starts anew at ``start_step``."""
        ahead, self._ahead = self._ahead, None
        if ahead is not None and not ahead.close(_PATIENCE):
            for worker in getattr(self._parts, "_workers", ()):
                with suppress(RuntimeError):  # by which torch reports its death
                    worker.kill()  # stuck in a read: it would be waited for without end
                    worker.join(_PATIENCE)
        if self.workers and self._parts is not None:
            # As its end would, which a suspended frame or a fault that is kept may put off.
            self._parts._shutdown_workers()  # type: ignore[attr-defined]  # of torch's iterator
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
    """Pieces of micro-batches; torch takes them from its workers in turn, as they are dealt."""

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
            # Raised in the main process: torch would wrap it into a traceback.
            return part.done(fault)


def _next(take: Callable[[], Carried]) -> Carried:
    try:
        with waiting("samples of the data loader"):
            return take()
    except RuntimeError as fault:
        if (line := worker_died(fault)) is None:
            raise
        raise DataError(line) from None


def _order(source: Source, recipe: Recipe) -> Order:
    keys: dict[str, Any] = {
        "seed": recipe.train.seed,
        "global_batch": recipe.train.global_batch,
        "lanes": recipe.data.lanes,
        "block": recipe.data.block,
    }
    if recipe.data.mixture is None or not isinstance(source, Joined):
        return Plan(source.counts, tail=recipe.data.tail, name=source.name, **keys)
    mixed = source.sources
    weights = [one.weight for one in recipe.data.mixture]
    return Mixture([one.counts for one in mixed], weights, [one.name for one in mixed], **keys)
