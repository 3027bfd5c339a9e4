"""From the numbers of a scanner to numbers that a model sees."""

from __future__ import annotations

import numpy as np

from mimsuite.config.keys.scans import IntensityRule, PercentileSection, WindowSection
from mimsuite.data.scans.volume import Summary


def scaled(values: np.ndarray, rule: IntensityRule, summary: Summary) -> np.ndarray:
    """float32: the rule's range becomes [0, 1] and what is outside is clipped; of ``none`` the
    values as they are."""
    values = values.astype(np.float32)
    if isinstance(rule, WindowSection):
        low, high = rule.low, rule.high
    elif isinstance(rule, PercentileSection):
        low, high = summary.percentile(rule.low), summary.percentile(rule.high)
    else:
        return values
    within: np.ndarray = (values - np.float32(low)) / np.float32(max(high - low, 1e-12))
    return within.clip(0, 1)
