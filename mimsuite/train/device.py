"""Choice of the device of a process, and its peak memory."""

from __future__ import annotations

import resource
from contextlib import suppress
from pathlib import Path

import torch

from mimsuite.errors import UserError


def choose_device(wanted: str, local_rank: int = 0, world: int = 1) -> torch.device:
    """``auto`` means cuda, else mps, else cpu; the local rank selects one of several CUDA devices.

    A process that sees a single GPU uses it, since SLURM can give each task its own. Ranks check
    that their devices differ when they connect.

    Raises:
        UserError: the machine has no such device, or several ranks share one device.
    """
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if wanted == "auto":
        wanted = next((name for name, there in available.items() if there), "cpu")
    if wanted == "cuda" and available["cuda"]:
        count = torch.cuda.device_count()
        if count == 1:
            return torch.device("cuda", 0)
        if local_rank >= count:
            raise UserError(f"local rank {local_rank} has no device of its own: there are {count}")
        return torch.device("cuda", local_rank)
    kind = wanted.partition(":")[0]
    if kind not in ("cpu", *available):
        raise UserError(f"unknown device '{wanted}': auto, cpu, cuda or mps")
    if not available.get(kind, True):
        raise UserError(f"device '{wanted}' is not available here: use --device cpu")
    device = torch.device(wanted)
    if device.type == "cuda":
        _require_own(device, world)
        torch.cuda.set_device(device)  # generators and pinned memory belong to the current device
    return device


def _require_own(device: torch.device, world: int) -> None:
    if world > 1:
        raise UserError(
            f"train.device={device} is one device, but there are {world} ranks: use "
            f"train.device=cuda, each then has its own"
        )
    count = torch.cuda.device_count()
    if device.index >= count:
        raise UserError(f"there is no device '{device}' here: they are cuda:0 to cuda:{count - 1}")


def peak_memory_mb(device: torch.device) -> float:
    """Peak memory in MiB: of the GPU, or of this process on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    # Not ru_maxrss: Linux initialises it with that of the parent process.
    with suppress(OSError, IndexError):
        status = Path("/proc/self/status").read_text(encoding="utf-8")
        return int(status.split("VmHWM:")[1].split()[0]) / 2**10  # /proc gives KiB
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
