"""The moving average of the weights, which is evaluated and exported if the recipe keeps one."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from mimsuite.cluster.sharding import local, put
from mimsuite.models.momentum import follow
from mimsuite.train.stored import unread


class MovingAverage:
    """``average += (1 - decay) * (weight - average)`` after every step that was not skipped.

    Attributes:
        tensors: name in the method's state -> this rank's part of the average.
    """

    def __init__(self, method: nn.Module, decay: float) -> None:
        self.decay = decay
        self.tensors = {n: t.detach().clone() for n, t in method.state_dict().items()}
        # Stored, because walking all modules in every step costs as much as a small update.
        trained = dict(method.named_parameters(remove_duplicate=False))  # as in the state dict
        self._parameters = [(t, trained[n]) for n, t in self.tensors.items() if n in trained]
        self._buffers = [name for name in self.tensors if name not in trained]

    @torch.no_grad()
    def update(self, method: nn.Module, skipped: Tensor) -> None:
        """Update the average, unless ``skipped`` is 1; the flag stays on the device."""
        averages, live = zip(*self._parameters, strict=True)
        follow(averages, live, self.decay, skipped)
        for name in self._buffers:
            average, value = local(self.tensors[name]), local(method.get_buffer(name))
            moved = value
            if average.is_floating_point():
                moved = torch.lerp(average, value, 1 - self.decay)
            average.copy_(torch.where(skipped > 0, average, moved))

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Restore the average from whole tensors."""
        for name, average in self.tensors.items():
            saved = unread(tensors, name)
            if saved is None:
                raise KeyError(name)
            put(average, saved)
