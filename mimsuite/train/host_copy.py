"""A copy of the state in memory of its own, for a writer that works while training continues.

Weights, optimizer and averages change only where a step is applied. So a thread copies them while
the next step's gradients are computed, and training waits for it only before that step is applied.
"""

from __future__ import annotations

import mmap
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass

import torch
from torch import Tensor

from mimsuite.cluster.background import Background

_ALIGNED = 64  # bytes

Groups = dict[str, dict[str, Tensor]]


@dataclass(frozen=True)
class Copying:
    """A copy under way.

    Attributes:
        done: gets the copies, in the names and groups of the originals.
        versions: those originals that are not copied yet, and their versions when it began.
    """

    done: Future[Groups]
    versions: list[tuple[Tensor, int]]

    def wait(self) -> None:
        """Until the originals may change.

        Raises:
            RuntimeError: one of them has changed already.
        """
        if self.done.exception() is None and any(t._version != v for t, v in self.versions):
            raise RuntimeError(
                "a weight was changed outside the optimizer's step and Method.after_step, while "
                "it was copied for a checkpoint"
            )
        self.versions.clear()


class HostCopier:
    """Copies tensors to the host, one set of them at a time."""

    def __init__(self) -> None:
        self._thread = Background("copy of the state")
        self._pinned: Tensor | None = None

    def begin(
        self,
        groups: Mapping[str, Mapping[str, Tensor]],
        *,
        fixed: Callable[[str, str], bool] = lambda group, name: True,
    ) -> Copying:
        """Begin to copy.

        The memory of copies from the CPU is mapped for them alone and goes back to the kernel with
        the last of them. What is freed of the heap stays in the process
        (:mod:`mimsuite.train.memory`), so that a copy there would be held for the rest of the run.
        Copies from a GPU go to pinned memory, which is slow to get and so is kept for the next
        set: let go of the copies before that.

        Args:
            fixed: group, name -> whether the tensor stays as it is until the copy is waited for;
                others are copied before this returns.
        """
        every = [tensor for tensors in groups.values() for tensor in tensors.values()]
        size = sum(map(_room, every))
        device = next((tensor.device for tensor in every if tensor.is_cuda), None)
        flat = self._memory(size, pinned=device is not None)
        copies: Groups = {group: {} for group in groups}
        later: list[tuple[Tensor, Tensor]] = []
        at = 0
        with torch.no_grad():
            for group, tensors in groups.items():
                for name, tensor in tensors.items():
                    room = flat[at : at + tensor.nbytes].view(tensor.dtype).view(tensor.shape)
                    copies[group][name] = room
                    at += _room(tensor)
                    if fixed(group, name):
                        later.append((room, tensor))
                    else:
                        room.copy_(tensor)
        behind = None if device is None else torch.cuda.current_stream(device).record_event()

        def copy() -> Groups:
            _copy(later, device, behind)
            later.clear()  # and with it the originals
            return copies

        versions = [(tensor, tensor._version) for _, tensor in later]
        return Copying(self._thread.do(copy), versions)

    def _memory(self, size: int, *, pinned: bool) -> Tensor:
        if not size:
            return torch.empty(0, dtype=torch.uint8)
        if pinned:
            if self._pinned is None or len(self._pinned) < size:
                self._pinned = None
                self._pinned = torch.empty(size, dtype=torch.uint8, pin_memory=True)
            return self._pinned
        memory = mmap.mmap(-1, size)
        with suppress(AttributeError, OSError):  # fewer faults, where the kernel has large pages
            memory.madvise(mmap.MADV_HUGEPAGE)
        return torch.frombuffer(memory, dtype=torch.uint8)


@torch.no_grad()
def _copy(
    pairs: list[tuple[Tensor, Tensor]],
    device: torch.device | None,
    behind: torch.cuda.Event | None,
) -> None:
    """Fill rooms; from a GPU on a stream of its own, after what was queued before ``behind``."""
    if device is None or behind is None:
        for room, tensor in pairs:
            room.copy_(tensor)
        return
    stream = torch.cuda.Stream(device)
    stream.wait_event(behind)
    with torch.cuda.stream(stream):
        for room, tensor in pairs:
            room.copy_(tensor, non_blocking=True)
    stream.synchronize()


def _room(tensor: Tensor) -> int:
    return -(-tensor.nbytes // _ALIGNED) * _ALIGNED
