"""Data parallelism of a method: none (one process), full copies (DDP), or shards (FSDP2).

The trainer calls the replica instead of the method, and marks micro-batches that only accumulate
gradients. Nothing else in the trainer depends on the kind of parallelism.
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
from torch.distributed.fsdp import (
    FSDPModule,
    MixedPrecisionPolicy,
    fully_shard,
    register_fsdp_forward_method,
)
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel

from mimsuite.errors import UserError


class Replica:
    """A method's forward pass in one process.

    Attributes:
        sharded: whether this process holds only a part of each weight. Then ``state_dict()``
            contains DTensors, and all ranks must run each forward pass together.
        settles: whether the summation order of gradients changes after the first backward pass of
            a process, so that one warm-up pass must be discarded.
    """

    sharded = settles = False

    def __init__(self, module: nn.Module) -> None:
        self.module = module

    def __call__(self, *inputs: Any) -> Any:
        return self.module(*inputs)

    def without_sync(self) -> AbstractContextManager[Any]:
        """Context for forward and backward of every micro-batch of a step but the last."""
        return nullcontext()


class DDPReplica(Replica):
    """A full copy on each rank; gradients are averaged during the backward pass (DDP)."""

    module: DistributedDataParallel

    def __init__(self, method: nn.Module, device: torch.device) -> None:
        # DDP warns about one small parameter, the permuted patch embedding.
        warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides")
        known = inspect.signature(DistributedDataParallel).parameters
        buffers = next(n for n in ("forward_sync_buffers", "broadcast_buffers") if n in known)
        options: dict[str, Any] = {buffers: False, "gradient_as_bucket_view": True}
        devices = [device.index] if device.type == "cuda" else None
        super().__init__(DistributedDataParallel(method, device_ids=devices, **options))
        self.settles = dist.get_world_size() > 2  # with two ranks, a + b = b + a

    def without_sync(self) -> AbstractContextManager[Any]:
        return self.module.no_sync()


class FSDPReplica(Replica):
    """Weights, gradients and optimizer state are sharded along their first axis (FSDP2).

    Each unit's weights are gathered only for its forward and backward pass. Parameters outside all
    units (embeddings, norms, heads) are gathered once per forward pass of the method.

    Args:
        method: changed in place; its parameters become DTensors.
        units: modules inside it, parents before children.
        half: 16-bit type in which autocast computes. Units then gather their weights in it, half of
            the traffic; gradients are summed in float32. Parameters outside of units stay float32,
            and so do units with batch norm, whose kernels want weights and statistics of one type.

    Raises:
        UserError: a parameter cannot be sharded.
    """

    sharded = True

    def __init__(
        self,
        method: nn.Module,
        units: Sequence[nn.Module],
        device: torch.device,
        half: torch.dtype | None = None,
    ) -> None:
        super().__init__(method)
        mesh = init_device_mesh(device.type, (dist.get_world_size(),))
        # The residual stream stays as autocast makes it: inputs are not cast.
        less = MixedPrecisionPolicy(half, torch.float32, cast_forward_inputs=False)
        try:
            for unit in reversed(units):
                policy = MixedPrecisionPolicy() if half is None or _has_batch_norm(unit) else less
                fully_shard(unit, mesh=mesh, mp_policy=policy)
            fully_shard(method, mesh=mesh)
        except (ValueError, NotImplementedError) as error:
            reason = " ".join(str(error).split())
            raise UserError(f"train.parallel=fsdp: {reason}; use train.parallel=ddp") from None
        # Methods other than forward that use weights.
        for part, names in [(method, ("prepare", "mask")), *((unit, ("qkv",)) for unit in units)]:
            for name in names:
                if callable(getattr(type(part), name, None)):
                    register_fsdp_forward_method(part, name)

    @contextmanager
    def without_sync(self) -> Iterator[None]:
        assert isinstance(self.module, FSDPModule)
        self.module.set_requires_gradient_sync(False)
        try:
            yield
        finally:
            self.module.set_requires_gradient_sync(True)


def _has_batch_norm(unit: nn.Module) -> bool:
    return any(isinstance(module, _BatchNorm) for module in unit.modules())
