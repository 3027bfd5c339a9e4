"""Sample order: a pure function of (seed, epoch), independent of ranks and workers.

Letters: T samples in the set, B global batch, L lanes, M block, n = T // L samples per lane,
K = B / L samples that a global batch takes from each lane.

The permuted shards of an epoch form one sequence of T samples. It is rotated by a keyed amount, so
that the incomplete tail consists of different samples each time. Lane l is the range
[l n, (l + 1) n) of the sequence. A lane is read block by block and permuted inside each block, so a
shard is read nearly in sequence. Row ``slot * L + lane`` of the global batch at step t of the epoch
is place ``t K + slot`` of the lane.

If the tail is repeated instead of dropped, n is rounded up and the sequence wraps around: each
sample is read once, and fewer than B of them a second time.

The whole state of the stream is therefore one number, the global step.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np

from mimsuite.errors import UserError
from mimsuite.noise import keyed_rng

MOST_LANES = 512
_LEAST_CANDIDATES = 64  # smaller blocks also use samples after them to replace corrupt ones
_EPOCHS_KEPT = 2  # a worker's lanes cross into the next epoch at the same step


@dataclass(frozen=True)
class Addresses:
    """Addresses of samples: (n,) int64 each."""

    shards: np.ndarray
    offsets: np.ndarray

    def __len__(self) -> int:
        return len(self.shards)

    def __getitem__(self, index: int) -> tuple[int, int]:
        return int(self.shards[index]), int(self.offsets[index])


class BlockId(NamedTuple):
    """A block: its stream (0 without a mixture), epoch, lane and number."""

    stream: int
    epoch: int
    lane: int
    block: int


@dataclass(frozen=True)
class _Sequence:
    """The sample sequence of an epoch: permuted shards, and the end of each."""

    order: np.ndarray
    starts: np.ndarray
    turn: int
    total: int

    def addresses(self, places: np.ndarray) -> Addresses:
        places = (places + self.turn) % self.total
        number = np.searchsorted(self.starts, places, side="right") - 1
        return Addresses(self.order[number], places - self.starts[number])


class Order(Protocol):
    """The interface of a sample order for lane readers.

    Attributes:
        seed: the recipe's ``train.seed``.
        total: samples in the set.
        global_batch: B.
        lanes: L.
        block: M.
        slots: K.
    """

    seed: int
    total: int
    global_batch: int
    lanes: int
    block: int
    slots: int

    @property
    def steps_per_epoch(self) -> int: ...

    @property
    def dropped(self) -> int: ...

    @property
    def repeated(self) -> int: ...

    def find(self, step: int, slot: int, lane: int) -> tuple[BlockId, int]: ...

    def samples_of(self, block: BlockId) -> Addresses: ...

    def spares_of(self, block: BlockId) -> Addresses: ...


class Plan:
    """The sample order of a training set.

    Args:
        counts: (shards,) int64, samples per shard, in source order.
        seed: the recipe's ``train.seed``.
        global_batch: B.
        lanes: L, a divisor of B; None: the largest divisor of B up to 512.
        block: M.
        tail: what happens to the samples that do not fill a batch: ``drop`` or ``repeat``.
        name: name of the set, for errors.

    Raises:
        UserError: lanes do not divide the batch, or the set is smaller than one batch.
    """

    def __init__(
        self,
        counts: np.ndarray,
        *,
        seed: int,
        global_batch: int,
        lanes: int | None = None,
        block: int = 1024,
        tail: str = "drop",
        name: str = "the set",
    ) -> None:
        self.total = int(counts.sum())
        self.lanes = lanes or default_lanes(global_batch)
        if global_batch % self.lanes:
            raise UserError(
                f"data.lanes={self.lanes} does not divide train.global_batch={global_batch}"
            )
        if self.total < global_batch:
            raise UserError(
                f"{name} has {self.total} samples, fewer than one global batch of {global_batch}: "
                f"set train.global_batch to at most {self.total}"
            )
        self.counts = np.asarray(counts, dtype=np.int64)
        self.seed, self.block, self.global_batch = seed, block, global_batch
        self.slots = global_batch // self.lanes
        self.per_lane = self.total // self.lanes
        if tail == "repeat":
            self.per_lane = -(-self.total // global_batch) * self.slots
        self._sequences: OrderedDict[int, _Sequence] = OrderedDict()

    @property
    def steps_per_epoch(self) -> int:
        return self.per_lane // self.slots

    @property
    def dropped(self) -> int:
        """Samples that each epoch leaves out, different ones each time: fewer than B + L."""
        return max(0, self.total - self.steps_per_epoch * self.global_batch)

    @property
    def repeated(self) -> int:
        """Samples that each epoch reads twice, different ones each time: fewer than B."""
        return max(0, self.steps_per_epoch * self.global_batch - self.total)

    def find(self, step: int, slot: int, lane: int) -> tuple[BlockId, int]:
        """The sample at (step, slot, lane): its block, and its place in the block."""
        epoch, step = divmod(step, self.steps_per_epoch)
        block, place = divmod(step * self.slots + slot, self.block)
        return BlockId(0, epoch, lane, block), place

    def samples_of(self, block: BlockId) -> Addresses:
        """The samples of a block in the order of use."""
        start = block.block * self.block
        size = min(self.block, self.per_lane - start)
        order = keyed_rng(self.seed, "block", *block[1:]).permutation(size)
        return self._sequence(block.epoch).addresses(block.lane * self.per_lane + start + order)

    def spares_of(self, block: BlockId) -> Addresses:
        """Samples after a small block that may replace its corrupt ones; often none."""
        start = block.lane * self.per_lane + block.block * self.block
        size = min(self.block, self.per_lane - block.block * self.block)
        last = min(max(size, _LEAST_CANDIDATES), self.total)
        return self._sequence(block.epoch).addresses(np.arange(start + size, start + last))

    def _sequence(self, epoch: int) -> _Sequence:
        if epoch not in self._sequences:
            rng = keyed_rng(self.seed, "shards", epoch)
            order = rng.permutation(len(self.counts))
            ends = np.cumsum(self.counts[order])
            self._sequences[epoch] = _Sequence(
                order, ends - self.counts[order], int(rng.integers(self.total)), self.total
            )
            if len(self._sequences) > _EPOCHS_KEPT:
                self._sequences.popitem(last=False)
        return self._sequences[epoch]


@dataclass(frozen=True)
class Share:
    """The part of every global batch that one rank reads, cut into micro-batches.

    Attributes:
        own: (B / world,) int64 rows of this rank, ascending.
        all_lanes: L.
        micro_batch: rows per micro-batch.
        accumulation: micro-batches per optimizer step.
    """

    own: np.ndarray
    all_lanes: int
    micro_batch: int
    accumulation: int

    @property
    def lanes(self) -> np.ndarray:
        """The lanes of these rows, ascending."""
        return np.unique(self.own % self.all_lanes)

    def rows(self, micro: int) -> np.ndarray:
        """(micro_batch,) global rows of micro-batch number ``micro``, ascending."""
        return self.own[micro * self.micro_batch : (micro + 1) * self.micro_batch]


def share_of(plan: Order, rank: int, world: int, micro_batch: int | None) -> Share:
    """The rows that ``rank`` of ``world`` processes reads: whole lanes, if there are enough.

    Args:
        micro_batch: largest number of rows on a device at once; None: all rows of the rank.

    Raises:
        UserError: the rows cannot be divided evenly.
    """
    if plan.global_batch % world:
        raise UserError(
            f"train.global_batch={plan.global_batch} cannot be shared evenly by {world} processes"
        )
    rows = plan.global_batch // world
    micro = min(micro_batch or rows, rows)
    if rows % micro:
        raise UserError(
            f"train.micro_batch={micro} does not divide the {rows} samples of each process "
            f"(train.global_batch={plan.global_batch} on {world})"
        )
    lane, slot = np.divmod(np.arange(rank * rows, (rank + 1) * rows), plan.slots)
    return Share(np.sort(slot * plan.lanes + lane), plan.lanes, micro, rows // micro)


def default_lanes(global_batch: int, most: int = MOST_LANES) -> int:
    """The largest divisor of the global batch up to a number."""
    return max(n for n in range(1, min(most, global_batch) + 1) if global_batch % n == 0)
