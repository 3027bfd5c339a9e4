"""The largest codes of a whole batch (arXiv:2412.06410): rows share what is allowed."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mimsuite.dictionaries.base import Selecting
from mimsuite.dictionaries.encoders import Coder


class BatchTopKDictionary(Selecting):
    """``active`` codes a row on average.

    Training cuts at the threshold that leaves ``active * B`` codes of the batch. Later rows, which
    come in batches of any size, are cut at its running mean, which is part of the state.

    Args:
        momentum: of the running mean.
    """

    running_threshold: Tensor

    def __init__(
        self, atoms: nn.Module, encoder: Coder, active: float, momentum: float = 0.9
    ) -> None:
        super().__init__(atoms, encoder)
        self.active, self.momentum = active, momentum
        self.register_buffer("running_threshold", torch.tensor(torch.nan))  # NaN: never trained

    def pick(self, rectified: Tensor) -> Tensor:
        with torch.no_grad():
            threshold = self.running_threshold
            if self.training:
                threshold = self._of_batch(rectified)
                self._follow(threshold)
            elif threshold.isnan():
                threshold = self._of_batch(rectified)
        return rectified * (rectified >= threshold)

    def threshold(self) -> Tensor | None:
        return self.running_threshold

    def _of_batch(self, rectified: Tensor) -> Tensor:
        count = min(max(round(self.active * len(rectified)), 1), rectified.numel())
        return rectified.flatten().topk(count).values[-1]

    def _follow(self, threshold: Tensor) -> None:
        before = self.running_threshold
        mean = self.momentum * before + (1 - self.momentum) * threshold
        self.running_threshold.copy_(torch.where(before.isnan(), threshold, mean))
