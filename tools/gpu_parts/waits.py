"""Where the host waits for the device, by file and line of the package.

CUDA says so itself. On a CPU the operations that would make it wait are found, but not copies from
unpinned memory; those of host tensors, which wait nowhere, are found as well.
"""

from __future__ import annotations

import traceback
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from gpu_parts.findings import place_of

READS = {"_local_scalar_dense", "nonzero", "masked_select", "equal", "is_nonzero"}


def waits(work: Callable[[], Any], device: torch.device) -> list[str]:
    """``file:line`` of each wait in ``work``, as often as it happens."""
    return _on_cuda(work) if device.type == "cuda" else _by_operations(work)


def _on_cuda(work: Callable[[], Any]) -> list[str]:
    found: list[str] = []

    def note(message: Any, *_: Any, **__: Any) -> None:
        if "synchroniz" in str(message):
            found.append(place_of(traceback.extract_stack()) or "outside of the package")

    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = note
        torch.cuda.set_sync_debug_mode("warn")
        try:
            work()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    return found


def _by_operations(work: Callable[[], Any]) -> list[str]:
    class Reads(TorchDispatchMode):
        def __init__(self) -> None:
            super().__init__()
            self.places: list[str] = []

        def __torch_dispatch__(
            self, func: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            if func.overloadpacket.__name__ in READS:
                self.places.append(place_of(traceback.extract_stack()))
            return func(*args, **(kwargs or {}))

    with Reads() as reads:
        work()
    return reads.places
