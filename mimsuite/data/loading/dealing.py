"""Which worker makes which rows: micro-batches are cut into pieces that the workers take in turn.

Samples are read by index and every draw is keyed, so any worker can make any row, and neither their
number nor that of the ranks changes a batch. Mostly a piece is a whole micro-batch. Of remote
shards without a cache each process keeps what it has fetched, so there the rows of a lane always go
to the same worker.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

import numpy as np

from mimsuite.data.order.sample_order import Share

_LARGEST = 1 << 24  # numbers in a piece: each worker has some ready ahead, mostly in /dev/shm

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Deal:
    """Piece i of micro-batch m is the (m * pieces + i)-th; worker w of W makes each W-th from w on.

    Attributes:
        share: the rows that this rank reads.
        workers: processes; 0: pieces are made one after the other where they are asked for.
        pieces: of a micro-batch.
        by_lane: a piece is all rows of some lanes, else a range of rows.
    """

    share: Share
    workers: int
    pieces: int
    by_lane: bool

    def places(self, micro: int, piece: int) -> np.ndarray:
        """Places in the micro-batch of the rows in a piece, ascending."""
        rows = self.share.rows(micro)
        if self.by_lane:
            return np.flatnonzero(rows % self.share.all_lanes % self.pieces == piece)
        return np.array_split(np.arange(len(rows)), self.pieces)[piece]


def deal_of(share: Share, workers: int, numbers: int, *, by_lane: bool) -> Deal:
    """Deal a rank's rows to its workers.

    Args:
        workers: as asked for.
        numbers: of a sample, in all of its views.
        by_lane: each lane's rows to one worker, of which there are then no more than lanes.
    """
    if by_lane and workers:
        lanes = len(share.lanes)
        if lanes < workers:
            _log.warning(
                "remote shards without data.cache are read by a worker a lane at most: %d instead "
                "of data.workers=%d; raise data.lanes or set data.cache",
                lanes,
                workers,
            )
        return Deal(share, min(workers, lanes), min(workers, lanes), by_lane=True)
    pieces = -(-share.micro_batch * numbers // _LARGEST) if workers else 1
    return Deal(share, workers, max(1, min(pieces, share.micro_batch)), by_lane=False)
