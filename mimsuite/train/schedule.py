"""Learning-rate schedules: pure functions of the fractional epoch, so nothing has to be saved."""

from __future__ import annotations

import math


def half_cosine(
    epoch: float, *, lr: float, min_lr: float, warmup_epochs: float, epochs: float
) -> float:
    """Linear warm-up from 0, then half a cosine down to ``min_lr`` (MAE's schedule).

    Args:
        epoch: fractional epoch = optimizer step / steps per epoch; the first step runs at rate 0.
        lr: peak rate, reached at ``warmup_epochs``.
    """
    if epoch < warmup_epochs:
        return lr * epoch / warmup_epochs
    progress = (epoch - warmup_epochs) / (epochs - warmup_epochs) if epochs > warmup_epochs else 1.0
    return min_lr + (lr - min_lr) * 0.5 * (1.0 + math.cos(math.pi * progress))
