"""LARS (You et al., arXiv:1708.03888), in the form used for linear probes of MAE."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer


class LARS(Optimizer):
    """Layer-wise adaptive rates with plain momentum; the momentum buffer does not contain the rate.

    For parameters with more than one axis: ``g += weight_decay * p``, then ``g *= trust *
    |p| / |g|`` (factor 1 if either norm is 0). 1-D parameters get neither. For all:
    ``mu = momentum * mu + g; p -= lr * mu``. Where ``found_inf`` is 1 a step changes nothing.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float,
        weight_decay: float = 0.0,
        momentum: float = 0.9,
        trust_coefficient: float = 0.001,
    ) -> None:
        defaults = {
            "lr": lr,
            "weight_decay": weight_decay,
            "momentum": momentum,
            "trust_coefficient": trust_coefficient,
        }
        super().__init__(params, defaults)
        self.found_inf: Tensor | None = None
        self._step_supports_amp_scaling = True  # as torch's fused optimizers say it

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._update(parameter, group)

    def _update(self, parameter: Tensor, group: dict[str, Any]) -> None:
        gradient = parameter.grad
        assert gradient is not None
        if parameter.ndim > 1:
            gradient = gradient + group["weight_decay"] * parameter
            size, slope = parameter.norm(), gradient.norm()
            trust = group["trust_coefficient"] * size / slope
            gradient = gradient * torch.where((size > 0) & (slope > 0), trust, 1.0)
        state = self.state[parameter]
        if "mu" not in state:
            state["mu"] = torch.zeros_like(parameter)
        mu: Tensor = state["mu"]
        moved = (mu * group["momentum"]).add_(gradient)
        updated = torch.add(parameter, moved, alpha=-group["lr"])
        if self.found_inf is not None:  # read on the device: the host does not wait
            moved = torch.where(self.found_inf > 0, mu, moved)
            updated = torch.where(self.found_inf > 0, parameter, updated)
        mu.copy_(moved)
        parameter.copy_(updated)
