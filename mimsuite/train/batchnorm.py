"""Batch norm with statistics over all ranks: ``train.sync_batchnorm``.

On CUDA this is torch's ``SyncBatchNorm``. It has no CPU kernel, so on the CPU the same statistics
are computed from two sums over ranks.

Letters: B samples on this rank, C channels.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from mimsuite.cluster.peers import Peers

Sum = Callable[[Tensor], Tensor]


def sync_batchnorm(model: nn.Module, peers: Peers, device: torch.device) -> nn.Module:
    """Replace every batch norm of the model by a synchronised one; parameter names stay."""
    if peers.world == 1:
        return model
    if device.type == "cuda":
        converted: nn.Module = nn.SyncBatchNorm.convert_sync_batchnorm(model)
        return converted
    for module in list(model.modules()):
        for name, child in module.named_children():
            if isinstance(child, _BatchNorm):
                setattr(module, name, SummedBatchNorm.of(child, peers.sum))
    return model


class SummedBatchNorm(_BatchNorm):
    """Batch norm whose training statistics are sums over ranks, with gradient.

    Inputs are (B, C) or (B, C, ...); B may differ between ranks.
    """

    total: Sum

    @classmethod
    def of(cls, norm: _BatchNorm, total: Sum) -> SummedBatchNorm:
        """Replace ``norm``, sharing its parameters and buffers."""
        new = cls(norm.num_features, norm.eps, norm.momentum, norm.affine, norm.track_running_stats)
        new._parameters, new._buffers = norm._parameters, norm._buffers
        new.total = total
        return new.train(norm.training)

    def _check_input_dim(self, input: Tensor) -> None:
        if input.dim() < 2:
            raise ValueError(f"expected (B, C, ...), got {tuple(input.shape)}")

    def forward(self, input: Tensor) -> Tensor:
        if not self.training and self.running_mean is not None:
            return super().forward(input)
        self._check_input_dim(input)
        x = input.float().transpose(0, 1).flatten(1)  # (C, n)
        count = self.total(x.new_tensor([x.shape[1]]))
        mean = self.total(x.sum(1)) / count
        centred = x - mean[:, None]
        variance = self.total(centred.square().sum(1)) / count
        self._track(mean.detach(), variance.detach(), count)
        y = centred * torch.rsqrt(variance + self.eps)[:, None]
        if self.affine:
            y = y * self.weight[:, None] + self.bias[:, None]
        shape = (input.shape[1], input.shape[0], *input.shape[2:])
        return y.reshape(shape).transpose(0, 1).to(input.dtype)

    def _track(self, mean: Tensor, variance: Tensor, count: Tensor) -> None:
        """Update running mean and unbiased variance, as ``_BatchNorm`` does."""
        if self.running_mean is None or self.running_var is None:
            return
        assert self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        factor: float | Tensor = (
            1 / self.num_batches_tracked.to(mean.dtype) if self.momentum is None else self.momentum
        )
        unbiased = variance * count / (count - 1)
        self.running_mean += factor * (mean - self.running_mean)
        self.running_var += factor * (unbiased - self.running_var)
