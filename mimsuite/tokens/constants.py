"""Small constant tensors, copied to a device once: each copy of numbers from the host waits for
the device."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import torch
from torch import Tensor


def constant(values: Sequence[float], like: Tensor) -> Tensor:
    """(len(values),) tensor on the device and in the dtype of ``like``; must not be changed."""
    if like.device.type not in ("cuda", "mps"):
        return like.new_tensor(values)
    return _kept(tuple(values), like.device, like.dtype)


@cache
def _kept(values: tuple[float, ...], device: torch.device, dtype: torch.dtype) -> Tensor:
    with torch.inference_mode(False):  # usable in training whoever asks first
        return torch.tensor(values, device=device, dtype=dtype)
