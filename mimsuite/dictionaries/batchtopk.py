"""BatchTopK: the largest codes of a whole batch, any number per row (arXiv:2412.06410)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mimsuite.dictionaries.base import Selecting
from mimsuite.dictionaries.encoders import Coder


class BatchTopKDictionary(Selecting):
    """Keeps ``active`` codes per row on average.

    Training keeps the ``active * B`` largest codes of the batch. Evaluation, with batches of any
    size, keeps codes above the running mean of the training thresholds, which is part of the state.

    Args:
        momentum: momentum of the running mean.
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
