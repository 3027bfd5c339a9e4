"""Conversion between whole tensors, as stored in files, and a rank's parts of sharded ones.

Sharded weights are DTensors, split along the first axis.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import EllipsisType
from typing import Protocol

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor, Shard, distribute_tensor


def local(tensor: Tensor) -> Tensor:
    """This rank's part of a tensor, without gradient; it shares the tensor's memory."""
    with torch.no_grad():
        return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def whole(tensors: Mapping[str, Tensor], *, keep: bool = True) -> dict[str, Tensor]:
    """Whole tensors; sharded ones are gathered one by one to the CPU. All ranks must call it.

    Args:
        keep: whether this rank keeps the result; otherwise the result is empty.
    """
    found: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if isinstance(tensor, DTensor):
            tensor = tensor.full_tensor().cpu() if keep else tensor.full_tensor()
        if keep:
            found[name] = tensor
    return found


class Rows(Protocol):
    """A whole tensor, maybe in a file, of which rows can be read."""

    @property
    def shape(self) -> torch.Size: ...

    def __getitem__(self, rows: slice | EllipsisType, /) -> Tensor: ...


def part_like(target: Tensor, tensor: Rows) -> Tensor:
    """Copy of a whole tensor on the device of ``target``, sharded like it.

    If it is sharded along its first axis, only this rank's rows are read.
    """
    if not isinstance(target, DTensor) or tensor.shape != target.shape:
        return tensor[...].detach().to(target.device, copy=True)
    mesh, cut = target.device_mesh, target.placements
    if mesh.ndim > 1 or cut != (Shard(0),):
        # Every rank has the whole tensor, so nothing is sent.
        return distribute_tensor(tensor[...].detach(), mesh, cut, src_data_rank=None)
    rows = -(-tensor.shape[0] // mesh.size())
    first = mesh.get_local_rank() * rows
    own = tensor[first : first + rows].detach().to(target.device, copy=True)
    return DTensor.from_local(
        own, mesh, cut, run_check=False, shape=target.shape, stride=target.stride()
    )


@torch.no_grad()
def put(target: Tensor, tensor: Rows) -> None:
    """Copy a whole tensor, or this rank's shard of it, into ``target``."""
    if isinstance(target, DTensor):
        local(target).copy_(local(part_like(target, tensor)))
    else:
        target.copy_(tensor[...])


def full_bytes(tensors: Mapping[str, Tensor]) -> int:
    """Size of the whole tensors in bytes."""
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
