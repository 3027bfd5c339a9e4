"""A copy of the state in memory of its own, for a writer that works while training continues."""

from __future__ import annotations

import mmap
from collections.abc import Mapping
from contextlib import suppress

import torch
from torch import Tensor

_ALIGNED = 64  # bytes

Groups = dict[str, dict[str, Tensor]]


@torch.no_grad()
def host_copy(groups: Mapping[str, Mapping[str, Tensor]]) -> Groups:
    """Copies on the host, in the names and groups of the originals.

    Their memory is mapped for them alone and goes back to the kernel with the last of them. What
    is freed of the heap stays in the process (:mod:`mimsuite.train.memory`), so that a copy there
    would be held for the rest of the run.
    """
    sizes = [_room(tensor) for tensors in groups.values() for tensor in tensors.values()]
    if not sum(sizes):
        return {group: {n: t.cpu() for n, t in some.items()} for group, some in groups.items()}
    memory = mmap.mmap(-1, sum(sizes))
    with suppress(AttributeError, OSError):  # fewer faults, where the kernel has large pages
        memory.madvise(mmap.MADV_HUGEPAGE)
    flat, at = torch.frombuffer(memory, dtype=torch.uint8), 0
    copies: Groups = {}
    for group, tensors in groups.items():
        copies[group] = {}
        for name, tensor in tensors.items():
            room = flat[at : at + tensor.nbytes].view(tensor.dtype).view(tensor.shape)
            copies[group][name] = room.copy_(tensor)
            at += _room(tensor)
    return copies


def _room(tensor: Tensor) -> int:
    return -(-tensor.nbytes // _ALIGNED) * _ALIGNED
