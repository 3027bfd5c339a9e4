"""Ranks of which one is late, for tests of waits; called by :class:`tests.cluster.ranks.Ranks`."""

from __future__ import annotations

import logging
import os
import sys
import time


def _quick() -> None:
    from mimsuite import waiting

    waiting.FIRST_SECONDS, waiting._LOOK_SECONDS = 1.5, 0.2
    handler = logging.StreamHandler(sys.stderr)
    logging.getLogger("mimsuite").handlers = [handler]


def meet_late() -> None:
    """The last two ranks come late to the rendezvous."""
    import torch

    from mimsuite.cluster.meeting import join
    from mimsuite.cluster.rank_info import find_rank_info

    _quick()
    info = find_rank_info()
    if info.rank >= 2:
        time.sleep(4)
    peers = join(info, torch.device("cpu"), 60.0)
    assert peers.gather_texts(str(info.rank)) == [str(rank) for rank in range(info.world)]


def serve_late() -> None:
    """Rank 0, which the others look for, comes late."""
    if os.environ["RANK"] == "0":
        time.sleep(4)
    meet_late()


def vote_late() -> None:
    """One rank comes late to a vote, and the first works for all."""
    import torch

    from mimsuite.cluster.meeting import join
    from mimsuite.cluster.rank_info import find_rank_info

    _quick()
    info = find_rank_info()
    peers = join(info, torch.device("cpu"), 60.0)
    peers.any_rank(False)
    if info.rank == 1:
        time.sleep(4)
    peers.any_rank(False)
    peers.run_on_first(lambda: time.sleep(4))
