"""``train.deterministic``: only operations that give the same bits each time.

Everything that is drawn is keyed, whatever the device. What else may differ between two equal runs
on a GPU is the order of sums in some kernels: gradients of attention, convolutions and indexing.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from mimsuite.errors import UserError

_CUBLAS = ("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when a process first uses cuBLAS


@contextmanager
def same_bits(wanted: bool) -> Iterator[None]:
    """Context of a run; without ``wanted`` it changes nothing.

    Raises:
        UserError: an operation has no form that gives the same bits each time.
    """
    if not wanted:
        yield
        return
    cudnn = torch.backends.cudnn
    filling: Any = torch.utils.deterministic
    before = torch.are_deterministic_algorithms_enabled(), cudnn.deterministic, cudnn.benchmark
    filled = filling.fill_uninitialized_memory
    os.environ.setdefault(*_CUBLAS)
    torch.use_deterministic_algorithms(True)
    cudnn.deterministic, cudnn.benchmark = True, False
    filling.fill_uninitialized_memory = False  # costs time, and nothing here reads such memory
    try:
        yield
    except RuntimeError as error:
        operation, _, rest = str(error).partition(" does not have a deterministic")
        if not rest:
            raise
        raise UserError(
            f"train.deterministic=true: {operation} has no form here that gives the same bits each "
            f"time; use train.deterministic=false"
        ) from None
    finally:
        torch.use_deterministic_algorithms(before[0])
        cudnn.deterministic, cudnn.benchmark = before[1:]
        filling.fill_uninitialized_memory = filled
