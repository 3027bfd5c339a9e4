"""The k largest codes of each row (arXiv:2406.04093)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mimsuite.dictionaries.base import Selecting
from mimsuite.dictionaries.encoders import Coder


class TopKDictionary(Selecting):
    """Keeps the ``active`` largest codes per row; fewer where fewer are positive."""

    def __init__(self, atoms: nn.Module, encoder: Coder, active: int) -> None:
        super().__init__(atoms, encoder)
        self.active = active

    def pick(self, rectified: Tensor) -> Tensor:
        return largest(rectified, self.active)


def largest(rows: Tensor, count: int) -> Tensor:
    """(B, C) with all but the ``count`` largest entries of each row set to 0."""
    values, places = rows.topk(min(count, rows.shape[1]), dim=1, sorted=False)
    return torch.zeros_like(rows).scatter(1, places, values)
