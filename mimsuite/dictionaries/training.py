"""One step of training a dictionary, and what is watched on the way."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from mimsuite.dictionaries.base import Coded, Dictionary
from mimsuite.dictionaries.losses import is_used, penalty, squared_error


class Step(NamedTuple):
    """What a step did.

    Attributes:
        loss: error and penalty; error: mean squared, alone.
        grad_norm: global L2 norm of all gradients, before clipping.
        coded: of the batch, before the weights moved.
    """

    loss: float
    error: float
    grad_norm: float
    coded: Coded


def train_step(
    dictionary: Dictionary,
    x: Tensor,
    optimizer: torch.optim.Optimizer,
    section: Any,
    clip: float | None,
    idle: Tensor | None = None,
) -> Step:
    """Move a dictionary by one batch.

    Args:
        x: (B, D).
        section: the penalty's.
        clip: largest global L2 norm of the gradients; ``None``: any.
        idle: (C,) codes that have long not been used.
    """
    optimizer.zero_grad()
    coded = dictionary(x)
    error = squared_error(x, coded)
    loss = error + penalty(section, dictionary, x, coded, idle)
    loss.backward()  # type: ignore[no-untyped-call]
    norm = torch.nn.utils.clip_grad_norm_(dictionary.parameters(), clip or torch.inf)
    optimizer.step()
    return Step(loss.item(), error.item(), norm.item(), coded)


class Activity:
    """When codes were used last."""

    def __init__(self, codes: int, device: torch.device) -> None:
        self._rows = torch.zeros(codes, dtype=torch.int64, device=device)

    def see(self, codes: Tensor) -> None:
        """Count a batch of codes (B, C)."""
        self._rows += len(codes)
        self._rows[is_used(codes)] = 0

    def idle(self, rows: int) -> Tensor:
        """(C,) codes not used for so many rows."""
        return self._rows >= rows
