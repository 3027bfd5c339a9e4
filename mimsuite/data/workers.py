"""What loader processes do at their start, what they use, and how the death of one is told."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterable
from pathlib import Path

import torch


def one_thread(worker: int) -> None:
    """Processes share out the work; threads of each would only get in their way."""
    torch.set_num_threads(1)


def start_worker(worker: int) -> None:
    """One thread, and deaf to stop signals.

    A scheduler signals all processes of a job; the trainer must find its workers alive to finish
    the step and save. They end when it closes them, or within seconds of its death.
    """
    one_thread(worker)
    for name in ("SIGINT", "SIGTERM", "SIGUSR1", "SIGUSR2"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)


def resident_mb(processes: Iterable[int]) -> float | None:
    """MiB in memory, summed over processes; pages that they share count for each.

    None where there is no /proc, or no such process.
    """
    try:
        pages = [int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in processes]
    except (OSError, IndexError):
        return None
    return sum(pages) * os.sysconf("SC_PAGE_SIZE") / 2**20 if pages else None


def worker_died(fault: RuntimeError) -> str | None:
    """A line for the user where the fault is torch's report of a dead worker, else None."""
    if "DataLoader worker" not in str(fault):
        return None
    return (
        "a loader worker died; most often memory or /dev/shm ran out: lower data.workers, or give "
        "the machine or container more"
    )
