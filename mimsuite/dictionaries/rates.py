"""Learning rates of a dictionary, step by step."""

from __future__ import annotations

import math

import numpy as np


def rate_table(
    base: float, final: float, total: int, warmup: int = 0, start: float = 0.0
) -> list[float]:
    """Linear warm-up from ``start`` to ``base``, both included, then a half cosine towards
    ``final``, which would be reached at step ``total``."""
    rest = total - warmup
    cosine = (1 + np.cos(math.pi * np.arange(rest) / max(rest, 1))) / 2
    table = np.concatenate([np.linspace(start, base, warmup), final + (base - final) * cosine])
    return [float(rate) for rate in table.astype(np.float32)]


def published_rate(table: list[float], step: int, optimizer_rate: float, final: float) -> float:
    """The rate of a step as in published code.

    The first step uses the optimizer's own rate, even with a warm-up; the first entry of the table
    is never used.
    """
    if step == 0:
        return optimizer_rate
    return table[step] if step < len(table) else final
