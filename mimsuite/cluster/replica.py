"""How ranks share the gradients of a method: not at all, by whole copies (DDP), or in shards.

The trainer calls a replica where it would call the method, and says which micro-batches only add
to the gradients. Nothing else of it depends on the way that was chosen.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method
from torch.nn.parallel import DistributedDataParallel

from mimsuite.errors import UserError


class Replica:
    """A method's forward pass in one process.

    Attributes:
        sharded: whether this process holds only a part of each weight; ``state_dict()`` then
            has DTensors, and a forward pass is made by all ranks together.
        settles: whether the order in which gradients are added up changes after the first
            backward pass of a process, so that one has to be thrown away first.
    """

    sharded = settles = False

    def __init__(self, module: nn.Module) -> None:
        self.module = module

    def __call__(self, *inputs: Any) -> Any:
        return self.module(*inputs)

    def without_sync(self) -> AbstractContextManager[Any]:
        """Around forward and backward of a micro-batch that is not the last of its step."""
        return nullcontext()


class Copied(Replica):
    """A whole copy on each rank, gradients averaged while backward runs (DDP)."""

    module: DistributedDataParallel

    def __init__(self, method: nn.Module, device: torch.device) -> None:
        # Said of one small parameter, the permuted patch embedding.
        warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides")
        known = inspect.signature(DistributedDataParallel).parameters
        buffers = next(n for n in ("forward_sync_buffers", "broadcast_buffers") if n in known)
        options: dict[str, Any] = {buffers: False, "gradient_as_bucket_view": True}
        devices = [device.index] if device.type == "cuda" else None
        super().__init__(DistributedDataParallel(method, device_ids=devices, **options))
        self.settles = dist.get_world_size() > 2  # a + b is b + a

    def without_sync(self) -> AbstractContextManager[Any]:
        return self.module.no_sync()


class Sharded(Replica):
    """Weights, gradients and optimizer state cut along their first axis (FSDP2).

    Each unit is put together for its own forward and backward only. What lies outside of all units
    (embeddings, norms, heads) is put together once a forward pass of the method.

    Args:
        method: changed in place; its parameters become DTensors.
        units: modules inside it, outer ones before those that they contain.

    Raises:
        UserError: a parameter that cannot be cut.
    """

    sharded = True

    def __init__(self, method: nn.Module, units: Sequence[nn.Module], device: torch.device) -> None:
        super().__init__(method)
        mesh = init_device_mesh(device.type, (dist.get_world_size(),))
        try:
            for unit in [*reversed(units), method]:
                fully_shard(unit, mesh=mesh)
        except (ValueError, NotImplementedError) as error:
            reason = " ".join(str(error).split())
            raise UserError(f"train.parallel=fsdp: {reason}; use train.parallel=ddp") from None
        for name in ("prepare", "mask"):  # they may use weights before the forward pass does
            if hasattr(method, name):
                register_fsdp_forward_method(method, name)

    @contextmanager
    def without_sync(self) -> Iterator[None]:
        assert isinstance(self.module, FSDPModule)
        self.module.set_requires_gradient_sync(False)
        try:
            yield
        finally:
            self.module.set_requires_gradient_sync(True)
