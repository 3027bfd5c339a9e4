"""Reading lanes: the sample for any (step, slot, lane), and the replacement of corrupt samples."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from mimsuite.data.damage import CorruptSample, Damage, first_names
from mimsuite.data.order.sample_order import Addresses, BlockId, Order
from mimsuite.data.source import Sample, Source
from mimsuite.data.views import Views
from mimsuite.errors import DataError, UserError
from mimsuite.noise import KeyedGenerator


@dataclass(frozen=True)
class Drawn:
    """A sample ready for the batch, and the corrupt samples that it replaces."""

    key: str
    label: int | np.ndarray | None
    views: dict[str, Tensor]
    damage: list[Damage]


class LaneReader:
    """Reads and decodes samples of any lane and makes their views.

    A corrupt sample is replaced by the next good one of its block; no other sample changes its
    place. Lanes may be read in any order: the current block of each lane and stream is kept.
    """

    def __init__(self, source: Source, plan: Order, views: Views) -> None:
        self.source, self.plan, self.views = source, plan, views
        self._blocks: dict[tuple[int, int], tuple[BlockId, Addresses]] = {}
        self._corrupt: dict[tuple[int, int], Damage] = {}
        self._generator = KeyedGenerator()

    def draw(self, step: int, slot: int, lane: int) -> Drawn:
        """The sample of a row; randomness in its views is keyed by seed, epoch and sample.

        Raises:
            DataError: no sample of the block can be decoded.
            UserError: the recipe does not accept a sample.
        """
        block, place = self.plan.find(step, slot, lane)
        damage: list[Damage] = []
        for address in self._candidates(block, place):
            try:
                sample = self._read(address)
                rng = self._generator(self.plan.seed, "augment", block.epoch, sample.key)
                views = self._views(sample, rng)
            except CorruptSample as fault:
                damage.append(self._remember(address, fault))
                continue
            return Drawn(sample.key, sample.label, views, damage)
        raise DataError(
            f"none of {len(damage)} samples in a row can be read: {first_names(damage)}"
        )

    def _read(self, address: tuple[int, int]) -> Sample:
        if address in self._corrupt:
            known = self._corrupt[address]
            raise CorruptSample(known.kind, known.message)
        return self.source.read(*address)

    def _views(self, sample: Sample, rng: np.random.Generator) -> dict[str, Tensor]:
        decoded = self.source.decode(sample)
        try:
            return self.views.train(decoded, rng)
        except UserError as fault:
            raise UserError(f"{sample.key}: {fault}") from None

    def _remember(self, address: tuple[int, int], fault: CorruptSample) -> Damage:
        damage = self.source.damage(*address, fault)
        self._corrupt[address] = damage
        return damage

    def _candidates(self, block: BlockId, place: int) -> Iterator[tuple[int, int]]:
        """The sample itself, then the rest of its block, cyclically, then the block's spares."""
        addresses = self._samples_of(block)
        for i in range(len(addresses)):
            yield addresses[(place + i) % len(addresses)]
        spares = self.plan.spares_of(block)
        for i in range(len(spares)):
            yield spares[i]

    def _samples_of(self, block: BlockId) -> Addresses:
        known = self._blocks.get((block.stream, block.lane))
        if known is None or known[0] != block:
            known = (block, self.plan.samples_of(block))
            self._blocks[block.stream, block.lane] = known
        return known[1]
