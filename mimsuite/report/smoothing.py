"""Lines through noisy figures of a run."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

SMOOTH = 25  # a smoothed line averages over about a 25th of the rows


def smoothed(values: Sequence[float], span: float) -> list[float]:
    """Mean of the exponential moving averages from either side, so that nothing lags behind.

    ``span`` is in values, as in pandas; NaN is skipped.
    """
    forward = _moving_average(values, span)
    backward = _moving_average(values[::-1], span)[::-1]
    pairs = zip(forward, backward, strict=True)
    return [b if math.isnan(a) else a if math.isnan(b) else (a + b) / 2 for a, b in pairs]


def _moving_average(values: Sequence[float], span: float) -> list[float]:
    keep = 1 - 2 / (max(span, 1) + 1)  # the bias of the start is taken out by the weight
    total = weight = 0.0
    result: list[float] = []
    for value in values:
        if math.isfinite(value):
            total = keep * total + value
            weight = keep * weight + 1
        result.append(total / weight if weight else math.nan)
    return result


def points_of(rows: list[dict[str, Any]], name: str) -> list[tuple[float, float]]:
    """(step, value) of a column; infinities are gaps like NaN."""
    points = []
    for row in rows:
        try:
            step, value = float(row["step"]), float(row[name])
        except (KeyError, TypeError, ValueError):
            continue
        points.append((step, value if math.isfinite(value) else math.nan))
    return points
