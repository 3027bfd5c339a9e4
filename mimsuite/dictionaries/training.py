"""One training step of a dictionary, and the record of used codes."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from mimsuite.dictionaries.base import Coded, Dictionary
from mimsuite.dictionaries.losses import is_used, penalty, squared_error


class Step(NamedTuple):
    """Result of a training step.

    Attributes:
        loss: error plus penalty.
        error: mean squared error.
        grad_norm: global L2 norm of all gradients, before clipping.
        coded: output for the batch, before the update.
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
    """Update a dictionary by one batch.

    Args:
        x: (B, D).
        section: a ``PenaltySection``.
        clip: largest global L2 norm of the gradients; ``None``: no clipping.
        idle: (C,) bool, codes unused for long.
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
    """Counts the rows since each code was last used."""

    def __init__(self, codes: int, device: torch.device) -> None:
        self._rows = torch.zeros(codes, dtype=torch.int64, device=device)

    def see(self, codes: Tensor) -> None:
        """Count a batch of codes (B, C)."""
        self._rows += len(codes)
        self._rows[is_used(codes)] = 0

    def idle(self, rows: int) -> Tensor:
        """(C,) bool, codes unused for at least ``rows`` rows."""
        return self._rows >= rows
