"""Loader worker processes: start-up, memory use, and the report of a dead worker."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterable
from pathlib import Path

import torch


def one_thread(worker: int) -> None:
    """Use one thread: the processes already share the work, and more threads would compete."""
    torch.set_num_threads(1)


def start_worker(worker: int) -> None:
    """Use one thread and ignore stop signals.

    A scheduler signals all processes of a job, but the trainer needs its workers to finish the step
    and save. Workers end when the trainer closes them, or within seconds of its death.
    """
    one_thread(worker)
    for name in ("SIGINT", "SIGTERM", "SIGUSR1", "SIGUSR2"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)


def resident_mb(processes: Iterable[int]) -> float | None:
    """Resident memory in MiB, summed over processes; shared pages count for each of them.

    None without /proc, or if there is no such process.
    """
    try:
        pages = [int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in processes]
    except (OSError, IndexError):
        return None
    return sum(pages) * os.sysconf("SC_PAGE_SIZE") / 2**20 if pages else None


# A dead worker shows as torch's own report, or as the end of the connection that passes memory.
LOST = (RuntimeError, ConnectionError, EOFError, FileNotFoundError)


def worker_died(fault: Exception) -> str | None:
    """A message for the user if the exception, one of ``LOST``, means a dead worker, else None.

    An exception of the worker's own, which torch raises again, is no death.
    """
    own = "in DataLoader worker process" in str(fault)
    if own or (isinstance(fault, RuntimeError) and "DataLoader worker (pid" not in str(fault)):
        return None
    return (
        "a loader worker died; most often memory or /dev/shm ran out: lower data.workers, or give "
        "the machine or container more"
    )
