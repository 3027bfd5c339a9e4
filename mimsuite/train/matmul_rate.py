"""The rate of matrix products on this machine, the upper limit for training steps."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

# (rows, inner, columns) of the matrix products that dominate a ViT-B step at batch 4.
_SHAPES = ((788, 768, 2304), (788, 768, 3072), (788, 3072, 768), (788, 512, 2048))
_FOR_GPUS = 16  # factor on rows for GPUs, whose batches are larger
_AT_ONCE = 50  # products on a GPU between two looks at the clock, each of which waits for it
_SECONDS = 0.5  # approximate duration of a round


def matrix_rate(
    device: torch.device, dtype: torch.dtype = torch.float32, *, wall: bool = False
) -> float:
    """FLOP/s over a few shapes, measured for half a second in total.

    Args:
        wall: use wall-clock time. Otherwise, on a CPU, use the process's CPU time over all threads,
            which depends less on other load.
    """
    now = time.perf_counter if wall and device.type != "cuda" else timer(device)
    at_once = _AT_ONCE if device.type == "cuda" else 1
    flops = elapsed = 0.0
    for rows, inner, columns in _SHAPES:
        rows *= _FOR_GPUS if device.type == "cuda" else 1
        left = torch.randn(rows, inner, device=device, dtype=dtype)
        right = torch.randn(inner, columns, device=device, dtype=dtype)
        out = left @ right
        begun = now()
        while now() - begun < _SECONDS / len(_SHAPES):
            for _ in range(at_once):
                torch.mm(left, right, out=out)
            flops += 2.0 * rows * inner * columns * at_once
        elapsed += now() - begun
    return flops / elapsed


def memory_rate(device: torch.device) -> float:
    """Bytes per second, read and written, of a copy between large tensors."""
    source = torch.ones(32 << 20, device=device)
    target = torch.empty_like(source)
    now = timer(device)
    target.copy_(source)
    moved, begun = 0, now()
    while now() - begun < _SECONDS / 2:
        target.copy_(source)
        moved += 2 * source.numel() * source.element_size()
    return moved / (now() - begun)


def timer(device: torch.device) -> Callable[[], float]:
    """A clock in seconds: CPU time of the process on a CPU, wall-clock time on other devices."""
    if device.type != "cuda":
        return time.process_time

    def now() -> float:
        torch.cuda.synchronize(device)
        return time.perf_counter()

    return now
