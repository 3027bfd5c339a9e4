"""Weighted mixture of sets: every batch contains each set's share; each set has its own epochs.

A fixed table says which set (stream) each place of a lane draws from. For place p of lane l, with L
lanes,

    u(p, l) = frac(g p / N + l / L),    N a multiple of L, g about 0.618 N, gcd(g, N) = 1

falls into one stream's interval [W_i, W_i + w_i), where w_i is its weight and W_i the sum of those
before it. In the L rows that one slot fills, u takes L equally spaced values, so a batch is mixed
as exactly as whole numbers allow. Along a lane u takes all N values, well spread, so every stream
is read evenly in all lanes. The state is still a single number, the step.
"""

from __future__ import annotations

from math import ceil, gcd

import numpy as np

from mimsuite.data.order.sample_order import Addresses, BlockId, Plan, default_lanes
from mimsuite.errors import UserError
from mimsuite.noise import key_of

_FINEST = 4096  # shares are exact to 1 / 4096


class Mixture:
    """The sample order of a mixture of sets; same interface as :class:`Plan`.

    A mixture never ends; one epoch is as many samples as all sets have together.

    Args:
        counts: for each set, (shards,) int64 samples per shard. Shard numbers continue over sets.
        weights: one per set, above 0; a set's share of the samples is weight / sum of weights.
        names: names of the sets, for errors.
        seed, global_batch, lanes, block: as in :class:`Plan`.

    Raises:
        UserError: lanes do not divide the batch, a set has fewer samples than lanes, or a weight
            is too small.
    """

    dropped = repeated = 0  # a mixture has no tail

    def __init__(
        self,
        counts: list[np.ndarray],
        weights: list[float],
        names: list[str],
        *,
        seed: int,
        global_batch: int,
        lanes: int | None = None,
        block: int = 1024,
    ) -> None:
        self.seed, self.global_batch, self.block = seed, global_batch, block
        self.lanes = lanes or default_lanes(global_batch)
        if global_batch % self.lanes:
            raise UserError(
                f"data.lanes={self.lanes} does not divide train.global_batch={global_batch}"
            )
        self.slots = global_batch // self.lanes
        self.total = int(sum(each.sum() for each in counts))
        self.shares = np.asarray(weights, dtype=np.float64) / sum(weights)
        for name, each, share in zip(names, counts, self.shares, strict=True):
            if each.sum() < self.lanes:
                raise UserError(
                    f"{name} has {each.sum()} samples, fewer than the {self.lanes} lanes of the "
                    f"mixture: set data.lanes to a divisor of {global_batch} up to {each.sum()}"
                )
            if share < 1 / _FINEST:
                raise UserError(f"{name} has less than 1/{_FINEST} of the mixture: leave it out")
        self._plans = [
            Plan(
                each,
                seed=key_of(seed, "mixture", stream),
                global_batch=self.lanes,
                lanes=self.lanes,
                block=block,
            )
            for stream, each in enumerate(counts)
        ]
        self._first_shard = np.cumsum([0, *map(len, counts)])
        self._tables: dict[int, tuple[np.ndarray, np.ndarray]] = {}

    @property
    def steps_per_epoch(self) -> int:
        return max(1, self.total // self.global_batch)

    def find(self, step: int, slot: int, lane: int) -> tuple[BlockId, int]:
        """The sample at (step, slot, lane): its block, and its place in the block."""
        streams, before = self._table(lane)
        rounds, place = divmod(step * self.slots + slot, len(streams))
        stream = int(streams[place])
        drawn = rounds * int(before[-1, stream]) + int(before[place, stream])
        block, place = self._plans[stream].find(drawn, 0, lane)
        return block._replace(stream=stream), place

    def samples_of(self, block: BlockId) -> Addresses:
        """The samples of a block in the order of use."""
        return self._numbered(block, self._plans[block.stream].samples_of(block))

    def spares_of(self, block: BlockId) -> Addresses:
        """Samples after a small block that may replace its corrupt ones; often none."""
        return self._numbered(block, self._plans[block.stream].spares_of(block))

    def _numbered(self, block: BlockId, found: Addresses) -> Addresses:
        return Addresses(found.shards + self._first_shard[block.stream], found.offsets)

    def _table(self, lane: int) -> tuple[np.ndarray, np.ndarray]:
        """(P,) stream of each place of a lane, and (P + 1, streams) earlier uses of each stream."""
        if lane not in self._tables:
            period = self.lanes * ceil(_FINEST / self.lanes)
            # Integers, so that rounding cannot repeat a value: u = number / N.
            places = np.arange(period)
            number = (_stride(period) * places + lane * (period // self.lanes)) % period
            ends = np.cumsum(self.shares)[:-1] * period
            # Small types: there are hundreds of lanes, and a table of each in every worker.
            streams = np.searchsorted(ends, number + 0.5, side="right").astype(np.int16)
            before = np.zeros((period + 1, len(self.shares)), dtype=np.int32)
            np.cumsum(streams[:, None] == np.arange(len(self.shares)), axis=0, out=before[1:])
            self._tables[lane] = streams, before
        return self._tables[lane]


def _stride(period: int) -> int:
    """The smallest number at or above the golden section of ``period`` that is coprime to it."""
    stride = max(1, round(0.618 * period))
    while gcd(stride, period) > 1:
        stride += 1
    return stride
