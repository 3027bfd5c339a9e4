"""``--procs N``: start several processes of one command on this machine, like a launcher.

Each process gets torchrun's variables. Stop signals are forwarded to all. When one process fails,
the others get a few seconds to report the reason, then they are killed. Does not import torch.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence

from mimsuite.children import passing_signals_on, start_child
from mimsuite.cluster.port import free_port
from mimsuite.cluster.rank_info import has_peers
from mimsuite.errors import UserError

_GRACE = 5.0  # seconds for the others after one has failed
_GRACE_SAVED = 60.0  # seconds for the others to clean up after one has saved and stopped


def launch(words: Sequence[str], count: int) -> int:
    """Run ``mimsuite WORDS`` as ``count`` processes; returns the exit code of the first to fail.

    Raises:
        UserError: this process was itself started by a launcher.
    """
    if has_peers():
        raise UserError("--procs starts processes by itself: leave it out under torchrun or srun")
    shared = {
        "WORLD_SIZE": str(count),
        "LOCAL_WORLD_SIZE": str(count),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(free_port()),
        "OMP_NUM_THREADS": os.environ.get(
            "OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // count))
        ),
    }
    ranks: list[subprocess.Popen[bytes]] = []
    with passing_signals_on(ranks):
        for rank in range(count):
            own = {"RANK": str(rank), "LOCAL_RANK": str(rank)}
            program = [sys.executable, "-m", "mimsuite", *words]
            ranks.append(start_child(program, env={**os.environ, **shared, **own}))
        return _wait(ranks)


def _wait(ranks: list[subprocess.Popen[bytes]]) -> int:
    """Wait until all have ended, or a limited time after the first failure.

    A dead rank cannot inform the others, and ranks that are not connected yet could not be informed
    at all. They are killed here.
    """
    failed = 0
    deadline = float("inf")
    while time.monotonic() < deadline:
        codes = [process.poll() for process in ranks]
        if not failed and any(codes):
            rank = next(rank for rank, code in enumerate(codes) if code)
            failed = codes[rank] or 0
            deadline = time.monotonic() + (_GRACE_SAVED if failed == 75 else _GRACE)
            if failed < 0:  # killed by a signal: it could not print a message itself
                print(f"rank {rank} was ended by {_name(-failed)}", file=sys.stderr, flush=True)
        if None not in codes:
            break
        time.sleep(0.05)
    return 128 - failed if failed < 0 else failed


def _name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
