"""How many operations a second this machine's matrix products do: the limit that steps have."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

# (rows, inner, columns) of the products that dominate a ViT-B step at batch 4.
_SHAPES = ((788, 768, 2304), (788, 768, 3072), (788, 3072, 768), (788, 512, 2048))
_FOR_GPUS = 16  # times as many rows, for a GPU's products to be as long as its own batches'
_SECONDS = 0.5  # a round of products lasts about so long


def matrix_rate(
    device: torch.device, dtype: torch.dtype = torch.float32, *, wall: bool = False
) -> float:
    """FLOP/s over a few shapes, each for its share of half a second.

    Args:
        wall: by the clock on the wall. Otherwise, on a CPU, seconds are of the process over all of
            its threads, which a busy machine stretches less.
    """
    now = time.perf_counter if wall and device.type != "cuda" else timer(device)
    flops = elapsed = 0.0
    for rows, inner, columns in _SHAPES:
        rows *= _FOR_GPUS if device.type == "cuda" else 1
        left = torch.randn(rows, inner, device=device, dtype=dtype)
        right = torch.randn(inner, columns, device=device, dtype=dtype)
        out = left @ right
        begun = now()
        while now() - begun < _SECONDS / len(_SHAPES):
            torch.mm(left, right, out=out)
            flops += 2.0 * rows * inner * columns
        elapsed += now() - begun
    return flops / elapsed


def memory_rate(device: torch.device) -> float:
    """Bytes a second of a copy between large tensors, read and written."""
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
    """Seconds: of the process on a CPU, of the wall on what works on its own."""
    if device.type != "cuda":
        return time.process_time

    def now() -> float:
        torch.cuda.synchronize(device)
        return time.perf_counter()

    return now
