"""JumpReLU: codes jump from 0 to their value at a trained threshold (arXiv:2407.14435)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from mimsuite.dictionaries.base import Selecting
from mimsuite.dictionaries.encoders import Coder
from mimsuite.dictionaries.kernels import KERNELS


class JumpReLUDictionary(Selecting):
    """Keeps rectified pre-codes of at least ``exp(thresholds)``, with one threshold per code.

    Args:
        kernel: key of :data:`KERNELS`, the kernel of the thresholds' pseudo-gradient.
        bandwidth: bandwidth of the kernel, in units of codes.
    """

    def __init__(
        self,
        atoms: nn.Module,
        encoder: Coder,
        codes: int,
        kernel: str = "silverman",
        bandwidth: float = 1e-3,
    ) -> None:
        super().__init__(atoms, encoder)
        self.kernel, self.bandwidth = kernel, bandwidth
        self.thresholds = nn.Parameter(torch.full((codes,), -3.0))  # logarithms

    def pick(self, rectified: Tensor) -> Tensor:
        return jump_relu(rectified, self.thresholds.exp(), self.kernel, self.bandwidth)

    def active(self, before: Tensor) -> Tensor:
        """(B, C): 1 where pre-codes exceed the threshold; only thresholds get a gradient."""
        return step(before, self.thresholds.exp(), self.kernel, self.bandwidth)

    def threshold(self) -> Tensor | None:
        return self.thresholds.exp()


class _Jump(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, threshold: Tensor, kernel: str, bandwidth: float) -> Tensor:
        ctx.save_for_backward(x, threshold)
        ctx.kernel, ctx.bandwidth = kernel, bandwidth
        return x * (x >= threshold)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None, None]:
        (grad,), (x, threshold) = grads, ctx.saved_tensors
        near = KERNELS[ctx.kernel](x - threshold, ctx.bandwidth)
        along = -(threshold / ctx.bandwidth) * (near * grad).sum(dim=0)
        return grad * (x >= threshold), along, None, None


class _Step(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, threshold: Tensor, kernel: str, bandwidth: float) -> Tensor:
        ctx.save_for_backward(x, threshold)
        ctx.kernel, ctx.bandwidth = kernel, bandwidth
        return (x > threshold).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[None, Tensor, None, None]:
        (grad,), (x, threshold) = grads, ctx.saved_tensors
        near = KERNELS[ctx.kernel](x - threshold, ctx.bandwidth)
        return None, -(near * grad).sum(dim=0) / ctx.bandwidth, None, None


def jump_relu(x: Tensor, threshold: Tensor, kernel: str, bandwidth: float) -> Tensor:
    """(B, C) ``x`` where it is at least ``threshold`` (C,), else 0."""
    codes: Tensor = _Jump.apply(x, threshold, kernel, bandwidth)
    return codes


def step(x: Tensor, threshold: Tensor, kernel: str, bandwidth: float) -> Tensor:
    """(B, C): 1 where ``x`` is above ``threshold`` (C,), else 0."""
    active: Tensor = _Step.apply(x, threshold, kernel, bandwidth)
    return active
