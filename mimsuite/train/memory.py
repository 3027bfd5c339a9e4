"""Memory: keep what was freed for the next step, and say what to do when there is none left.

A step frees and asks again for hundreds of megabytes of gradients. glibc returns large blocks to
the kernel at once, and every page then has to be faulted in and zeroed anew: about a tenth of a
ViT-B step on a CPU.
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
_MOST_DYNAMIC = 2**25  # DEFAULT_MMAP_THRESHOLD_MAX: blocks above are always given back


@contextmanager
def keep_freed_memory() -> Iterator[None]:
    """Raise glibc's thresholds for a while; does nothing with other C libraries.

    Then freed memory goes back to the kernel. The thresholds become those that glibc's own rule
    ends at; once set, it does not follow that rule again.
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
    """Whether a device, or this process, could not have what it asked for."""
    asked_in_vain = isinstance(error, RuntimeError) and "can't allocate memory" in str(error)
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or asked_in_vain


def out_of_memory(device: torch.device, train: TrainSection, samples: int, step: int) -> str:
    """One line: how much was in use, and what to change.

    Args:
        samples: of a micro-batch.
    """
    more = [] if train.checkpoint_activations else ["train.checkpoint_activations=true"]
    more += [] if train.parallel == "fsdp" else ["train.parallel=fsdp on several devices"]
    less = f"train.micro_batch={max(1, samples // 2)} (now {samples}; the result stays the same)"
    return (
        f"out of memory at step {step}, with {peak_memory_mb(device):.0f} MiB in use at the peak: "
        f"set {' or '.join([less, *more])}"
    )
