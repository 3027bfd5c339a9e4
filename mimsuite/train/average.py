"""The moving average of the weights: what is evaluated and exported where a recipe keeps one."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from mimsuite.train.sharding import local, put


class MovingAverage:
    """``average += (1 - decay) * (weight - average)`` after every step that was not skipped.

    Attributes:
        tensors: by the names of the method's state; of each this rank's part.
    """

    def __init__(self, method: nn.Module, decay: float) -> None:
        self.decay = decay
        self.tensors = {n: t.detach().clone() for n, t in method.state_dict().items()}
        self._parameters = {name for name, _ in method.named_parameters()}

    @torch.no_grad()
    def update(self, method: nn.Module, skipped: Tensor) -> None:
        """Follow the method, unless ``skipped`` is 1; that is decided on the device."""
        weight = (1 - self.decay) * (1 - skipped)
        for name, value in method.state_dict().items():
            average, live = local(self.tensors[name]), local(value)
            if name in self._parameters:  # a skipped step leaves them, so they are finite
                average.lerp_(live, weight.to(average.dtype))
            elif average.is_floating_point():
                moved = torch.lerp(average, live, 1 - self.decay)
                average.copy_(torch.where(skipped > 0, average, moved))
            else:
                average.copy_(torch.where(skipped > 0, average, live))

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Put whole tensors back."""
        for name, average in self.tensors.items():
            put(average, tensors[name])
