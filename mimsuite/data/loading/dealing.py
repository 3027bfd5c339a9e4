"""Assignment of rows to workers: micro-batches are cut into pieces, dealt out round-robin.

Samples are read by index and all randomness is keyed, so any worker can make any row, and the
numbers of workers and ranks do not change a batch. Usually a piece is a whole micro-batch. With
remote shards and no cache, each process keeps the data it fetched, so all rows of a lane go to the
same worker.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

import numpy as np

from mimsuite.data.order.sample_order import Share

_LARGEST = 1 << 24  # numbers in a piece; each worker keeps a few pieces in /dev/shm

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Deal:
    """Piece i of micro-batch m has number m * pieces + i; worker w of W makes w, w + W, w + 2 W ...

    Attributes:
        share: the rows that this rank reads.
        workers: worker processes; 0: the calling process makes each piece on request.
        pieces: pieces per micro-batch.
        by_lane: whether a piece is all rows of some lanes, instead of a range of rows.
    """

    share: Share
    workers: int
    pieces: int
    by_lane: bool

    def places(self, micro: int, piece: int) -> np.ndarray:
        """Row numbers of a piece within the micro-batch, ascending."""
        rows = self.share.rows(micro)
        if self.by_lane:
            return np.flatnonzero(rows % self.share.all_lanes % self.pieces == piece)
        return np.array_split(np.arange(len(rows)), self.pieces)[piece]


def deal_of(share: Share, workers: int, numbers: int, *, by_lane: bool) -> Deal:
    """Assign a rank's rows to its workers.

    Args:
        workers: requested number of workers.
        numbers: numbers per sample, all views together.
        by_lane: give all rows of a lane to one worker; then there are at most as many workers as
            lanes.
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
