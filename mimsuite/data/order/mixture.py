"""Several sets mixed by weights: every batch has its share of each, and each keeps its own epochs.

Which stream a place of a lane draws from is a fixed table. For place p of lane l, with L lanes,

    u(p, l) = frac(g p / N + l / L),    N a multiple of L, g about 0.618 N, gcd(g, N) = 1

falls into the interval [W_i, W_i + w_i) of one stream's weight. In the L rows that one slot fills,
u takes L values at equal distances: a batch is mixed as exactly as whole numbers allow. Along a
lane it takes all N values, well spread, so every stream goes through its own samples evenly in all
lanes. The state is still one number.
"""

from __future__ import annotations

from math import ceil, gcd

import numpy as np

from mimsuite.data.order.sample_order import Addresses, BlockId, Plan, default_lanes
from mimsuite.errors import UserError
from mimsuite.noise import key_of

_FINEST = 4096  # a weight's share is exact to one part in so many


class Mixture:
    """The order of several sets that are mixed; interface of :class:`Plan`.

    A mixture has no last sample: one epoch is as many samples as all sets have together.

    Args:
        counts: of each set, (shards,) int64 samples of its shards. Shards are numbered through.
        weights: of each set, above 0; its share of the samples is weight / sum of weights.
        names: of the sets, for errors.
        seed, global_batch, lanes, block: as for :class:`Plan`.

    Raises:
        UserError: lanes do not divide the batch, a set has fewer samples than there are lanes, or
            a weight is too small to be kept.
    """

    dropped = repeated = 0  # there is no tail

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
        self.seed, self.global_batch = seed, global_batch
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
        """Which sample a lane puts into a slot of a step: its block, and its place there."""
        streams, before = self._table(lane)
        rounds, place = divmod(step * self.slots + slot, len(streams))
        stream = int(streams[place])
        drawn = rounds * before[-1, stream] + before[place, stream]
        block, place = self._plans[stream].find(int(drawn), 0, lane)
        return block._replace(stream=stream), place

    def samples_of(self, block: BlockId) -> Addresses:
        """The samples of a block, in the order in which they are used."""
        return self._numbered(block, self._plans[block.stream].samples_of(block))

    def spares_of(self, block: BlockId) -> Addresses:
        """Samples behind a small block that may replace a corrupt one of it; often none."""
        return self._numbered(block, self._plans[block.stream].spares_of(block))

    def _numbered(self, block: BlockId, found: Addresses) -> Addresses:
        return Addresses(found.shards + self._first_shard[block.stream], found.offsets)

    def _table(self, lane: int) -> tuple[np.ndarray, np.ndarray]:
        """(P,) streams of a lane's places, and (P + 1, streams) how often each came before."""
        if lane not in self._tables:
            period = self.lanes * ceil(_FINEST / self.lanes)
            # Whole numbers, so that no rounding makes a value twice: u = number / N.
            places = np.arange(period)
            number = (_stride(period) * places + lane * (period // self.lanes)) % period
            ends = np.cumsum(self.shares)[:-1] * period
            streams = np.searchsorted(ends, number + 0.5, side="right")
            before = np.zeros((period + 1, len(self.shares)), dtype=np.int64)
            np.cumsum(streams[:, None] == np.arange(len(self.shares)), axis=0, out=before[1:])
            self._tables[lane] = streams, before
        return self._tables[lane]


def _stride(period: int) -> int:
    """A number at or above the golden section of N, without a common divisor."""
    stride = max(1, round(0.618 * period))
    while gcd(stride, period) > 1:
        stride += 1
    return stride
