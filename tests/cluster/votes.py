"""What many ranks say to each other; called by :class:`tests.cluster.ranks.Ranks`.

As a program, ``python tests/cluster/votes.py RANKS``, it prints how long the host of a rank waits
for the vote of a step.
"""

from __future__ import annotations

import os
import statistics
import sys
import time
from pathlib import Path

STEPS, STEP_SECONDS = 40, 0.25


def _join():
    import torch

    from mimsuite.cluster.meeting import join
    from mimsuite.cluster.rank_info import find_rank_info

    torch.set_num_threads(1)
    return join(find_rank_info(), torch.device("cpu"), 120.0)


def cast(out: str) -> None:
    """Votes between steps that take a while; the first rank writes what the median vote took."""
    peers = _join()
    files = len(os.listdir("/proc/self/fd"))
    waited = []
    for step in range(STEPS):
        time.sleep(STEP_SECONDS)
        begun = time.perf_counter()
        peers.vote(False, False, False, now=step == STEPS - 1)
        waited.append(time.perf_counter() - begun)
    median = 1e3 * statistics.median(waited[1:-1])
    rows = [tuple(map(float, row.split())) for row in peers.gather_texts(f"{median} {files}")]
    if peers.first:
        worst, most = max(row[0] for row in rows), int(max(row[1] for row in rows))
        middle = statistics.median(row[0] for row in rows)
        Path(out).write_text(f"{middle:.4f} {worst:.4f} {most}\n")


def agree() -> None:
    """Whatever teams pass on reaches all ranks, and votes are told one step later."""
    import torch

    peers = _join()
    rank, world = peers.rank, peers.world
    assert peers.any_rank(rank == world - 1, False, rank == 0) == (True, False, True)
    assert peers.vote(rank == 1, False) == (False, False)
    # Texts, and tensors, while a vote is on its way.
    assert peers.gather_texts("x" * rank) == ["x" * n for n in range(world)]
    assert peers.gather_texts("") == [""] * world
    assert peers.text_of_first(lambda: f"of {rank}") == "of 0"
    found = peers.gather_tensors({"a": torch.tensor([rank]), "b": torch.zeros(2)})
    assert [int(one["a"]) for one in found] == list(range(world))
    rows = peers.gather_rows(torch.full((rank % 3, 2), float(rank)))
    wanted = [float(n) for n in range(world) for _ in range(n % 3)]
    assert (rows is None) == (rank != 0)
    assert rows is None or rows[:, 0].tolist() == wanted
    assert peers.vote(False, rank == 2) == (True, False)
    assert peers.vote(False, False) == (False, True)
    assert peers.vote(rank == 3, False, now=True) == (True, False)
    assert peers.any_rank(False) == (False,)


if __name__ == "__main__":
    import tempfile

    sys.path.insert(0, str(Path(__file__).parents[2]))
    from tests.cluster.ranks import Ranks

    world = int(sys.argv[1])
    with tempfile.TemporaryDirectory() as folder:
        ranks = Ranks(Path(folder))
        codes, said = ranks.call(f"{__file__}:cast", f"{folder}/out", ranks=world)
        ranks.close()
        assert not any(codes), said
        middle, worst, files = Path(folder, "out").read_text().split()
        print(f"{world} ranks: host waits {middle} ms a vote (slowest rank {worst}), {files} files")
