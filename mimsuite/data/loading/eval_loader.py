"""The evaluation loader: every sample once, in source order, in a deterministic view."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from mimsuite.batch import Batch
from mimsuite.data.damage import CorruptSample, Damage, DamageCount
from mimsuite.data.loading.batch_piece import Part, PartBuilder, damage_in_order, join
from mimsuite.data.source import Sample, Source
from mimsuite.data.views import Views
from mimsuite.data.workers import LOST, one_thread, worker_died
from mimsuite.errors import DataError, MimsuiteError, UserError
from mimsuite.waiting import waiting


def eval_loader(
    source: Source,
    views: Views,
    batch: int,
    workers: int = 0,
    *,
    positions: Sequence[int] | None = None,
) -> EvalLoader:
    """Batches of a source for evaluation.

    Args:
        views: its deterministic views (``evaluate``) are used.
        batch: samples per batch; the last batch may be smaller.
        positions: positions in the source of the samples to read; None: all.
    """
    chosen = range(len(source)) if positions is None else [int(p) for p in positions]
    dataset = _Batches(source, views, chosen, batch)
    return EvalLoader(dataset, workers)


class EvalLoader:
    """Iterating yields batches, not yet normalised; ``index`` is the position in the source.

    A corrupt sample is left out and listed in ``damaged``.
    """

    def __init__(self, dataset: _Batches, workers: int) -> None:
        self._dataset, self._workers = dataset, workers
        self._count = DamageCount(len(dataset.positions))

    @property
    def damaged(self) -> list[Damage]:
        return list(self._count.found.values())

    def __len__(self) -> int:
        return len(self._dataset)

    def __iter__(self) -> Iterator[Batch]:
        """One pass over the samples.

        Raises:
            DataError: too many corrupt samples, or a worker died.
            UserError: the recipe does not accept a sample.
        """
        loader = DataLoader(
            self._dataset,
            batch_size=None,
            num_workers=min(self._workers, len(self._dataset)),
            worker_init_fn=one_thread,
            generator=torch.Generator(),  # otherwise torch uses the global generator
        )
        parts = iter(loader)
        while (part := self._next(parts)) is not None:
            self._count.add(damage_in_order([part]))
            if part.fault is not None:
                raise part.fault
            if part.views:
                yield join([part], labelled=self._dataset.source.annotated, pin=False)

    def _next(self, parts: Iterator[Part]) -> Part | None:
        try:
            with waiting("samples of the data loader"):
                return next(parts, None)
        except LOST as fault:
            if (line := worker_died(fault)) is None:
                raise
            raise DataError(line) from None


class _Batches(Dataset[Part]):
    """Whole batches, indexed by batch number."""

    def __init__(self, source: Source, views: Views, positions: Sequence[int], batch: int) -> None:
        self.source, self.views = source, views
        self.positions, self.batch = positions, batch

    def __len__(self) -> int:
        return -(-len(self.positions) // self.batch)

    def __getitem__(self, number: int) -> Part:
        if not 0 <= number < len(self):
            raise IndexError(number)
        part = PartBuilder()
        chosen = self.positions[number * self.batch : (number + 1) * self.batch]
        try:
            for row, position in enumerate(chosen):
                address = self.source.locate(position)
                try:
                    sample = self.source.read(*address)
                    views = self._views(sample)
                except CorruptSample as fault:
                    part.damaged(row, [self.source.damage(*address, fault)])
                    continue
                part.add(row, position, sample.key, sample.label, views)
            return part.done()
        except MimsuiteError as fault:
            return part.done(fault)

    def _views(self, sample: Sample) -> dict[str, Tensor]:
        decoded = self.source.decode(sample)
        try:
            return self.views.evaluate(decoded)
        except UserError as fault:
            raise UserError(f"{sample.key}: {fault}") from None
