"""Memory: keep freed memory for the next step, and advise the user when memory runs out.

Each step frees and reallocates hundreds of megabytes of gradients. glibc returns large blocks to
the kernel at once, so every page must be faulted in and zeroed again: about a tenth of a ViT-B step
on a CPU.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from mimsuite.config.keys.shared import TrainSection
from mimsuite.train.device import peak_memory_mb

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # <malloc.h>
_NEVER = 2**31 - 1
_MOST_DYNAMIC = 2**25  # DEFAULT_MMAP_THRESHOLD_MAX: larger blocks are always returned


@contextmanager
def keep_freed_memory() -> Iterator[None]:
    """Raise glibc's thresholds inside the context; does nothing with other C libraries.

    Afterwards freed memory is returned to the kernel. The thresholds are then set to the upper
    limit of glibc's dynamic rule, because setting them disables that rule for good.
    """
    try:
        libc = ctypes.CDLL("libc.so.6")
        mallopt, trim = libc.mallopt, libc.malloc_trim
    except (OSError, AttributeError):
        yield
        return
    mallopt(_M_MMAP_THRESHOLD, _NEVER)
    mallopt(_M_TRIM_THRESHOLD, _NEVER)
    try:
        yield
    finally:
        mallopt(_M_MMAP_THRESHOLD, _MOST_DYNAMIC)
        mallopt(_M_TRIM_THRESHOLD, 2 * _MOST_DYNAMIC)
        trim(0)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception means that a device or this process ran out of memory."""
    asked_in_vain = isinstance(error, RuntimeError) and "can't allocate memory" in str(error)
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or asked_in_vain


def out_of_memory(device: torch.device, train: TrainSection, samples: int, step: int) -> str:
    """A one-line message: memory in use, and which keys to change.

    Args:
        samples: samples per micro-batch.
    """
    more = [] if train.checkpoint_activations else ["train.checkpoint_activations=true"]
    more += [] if train.parallel == "fsdp" else ["train.parallel=fsdp on several devices"]
    less = f"train.micro_batch={max(1, samples // 2)} (now {samples}; the result stays the same)"
    return (
        f"out of memory at step {step}, with {peak_memory_mb(device):.0f} MiB in use at the peak: "
        f"set {' or '.join([less, *more])}"
    )
