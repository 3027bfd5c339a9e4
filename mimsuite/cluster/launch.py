"""``--procs N``: several processes of one command on this machine, as a launcher would start them.

Each gets torchrun's variables. A stop signal is passed on to all; when one fails, the others get a
little time to say why they stop too, and are then ended. Torch-free.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from types import FrameType

from mimsuite.errors import UserError

_GRACE = 5.0  # seconds that the others have after one has failed
_PASSED_ON = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2)


def launch(words: Sequence[str], count: int) -> int:
    """Run ``mimsuite WORDS`` as ``count`` processes; returns the exit code of the first to fail.

    Raises:
        UserError: this process is one of several already.
    """
    if "RANK" in os.environ:
        raise UserError("--procs starts processes by itself: leave it out under torchrun or srun")
    shared = {
        "WORLD_SIZE": str(count),
        "LOCAL_WORLD_SIZE": str(count),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(_free_port()),
        "OMP_NUM_THREADS": os.environ.get(
            "OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // count))
        ),
    }
    ranks: list[subprocess.Popen[bytes]] = []

    def pass_on(number: int, frame: FrameType | None) -> None:
        for process in ranks:
            if process.poll() is None:
                process.send_signal(number)

    before = {number: signal.signal(number, pass_on) for number in _PASSED_ON}
    try:
        for rank in range(count):
            own = {"RANK": str(rank), "LOCAL_RANK": str(rank)}
            # A group of its own: Ctrl-C reaches it through us, once.
            ranks.append(
                subprocess.Popen(
                    [sys.executable, "-m", "mimsuite", *words],
                    env={**os.environ, **shared, **own},
                    start_new_session=True,
                )
            )
        return _wait(ranks)
    finally:
        for process in ranks:
            if process.poll() is None:
                process.kill()
            process.wait()
        for number, handler in before.items():
            signal.signal(number, handler)


def _wait(ranks: list[subprocess.Popen[bytes]]) -> int:
    """Until all have ended, or some time after the first has failed."""
    failed: int | None = None
    deadline = float("inf")
    while time.monotonic() < deadline:
        codes = [process.poll() for process in ranks]
        if failed is None:
            failed = next((code for code in codes if code), None)
            if failed is not None and failed != 75:  # 75: all are saving
                deadline = time.monotonic() + _GRACE
        if None not in codes:
            break
        time.sleep(0.05)
    return 128 - failed if failed is not None and failed < 0 else failed or 0


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
