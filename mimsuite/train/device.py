"""The device of a process."""

from __future__ import annotations

import resource
from contextlib import suppress
from pathlib import Path

import torch

from mimsuite.errors import UserError


def choose_device(wanted: str, local_rank: int = 0) -> torch.device:
    """``auto`` takes cuda, else mps, else cpu; of several CUDA devices that of the local rank.

    Raises:
        UserError: a device that this machine does not have.
    """
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if wanted == "auto":
        wanted = next((name for name, there in available.items() if there), "cpu")
    if wanted == "cuda" and available["cuda"]:
        count = torch.cuda.device_count()
        if local_rank >= count:
            raise UserError(f"local rank {local_rank} has no device of its own: there are {count}")
        return torch.device("cuda", local_rank)
    kind = wanted.partition(":")[0]
    if kind not in ("cpu", *available):
        raise UserError(f"unknown device '{wanted}': auto, cpu, cuda or mps")
    if not available.get(kind, True):
        raise UserError(f"device '{wanted}' is not available here: use --device cpu")
    return torch.device(wanted)


def peak_memory_mb(device: torch.device) -> float:
    """Peak memory in MiB: of the device where it counts its own, else of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    # Linux starts ru_maxrss of a new program at that of the process which launched it.
    with suppress(OSError, IndexError):
        status = Path("/proc/self/status").read_text(encoding="utf-8")
        return int(status.split("VmHWM:")[1].split()[0]) / 2**10  # in KiB there
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
