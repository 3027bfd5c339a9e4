"""Losses of healthy runs, to see one's own beside: seeds of a recipe, kept in the package.

A run has a reference if every setting that the loss depends on is as in those runs; the seed may
differ. The sentence it gives is no verdict.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from mimsuite.report.run_facts import RunFacts, leaves_of, read_json
from mimsuite.report.smoothing import SMOOTH, points_of, smoothed
from mimsuite.text import number

FOLDER = Path(__file__).parent / "reference_curves"
_SECTIONS = (
    *("method", "model", "mask", "target", "data", "augment", "optim", "schedule"),
    *("train.global_batch", "train.ema", "train.loss_scope"),
)
_NO_MATTER = {  # how data is read, not what
    *("data.root", "data.workers", "data.lanes", "data.verify", "data.cache", "data.cache_gib"),
    *("data.max_pixels", "data.max_bytes"),
}
# A loss is far from the reference by this many widths of its band, and this share of its whole
# fall: three seeds tell the width only roughly, and early steps fall steeply.
_WIDTHS, _SHARE = 3.0, 0.1
_FEWEST = 5  # rows of metrics, before anything is said


@dataclass(frozen=True)
class Reference:
    """Smoothed losses of several runs, all logged at the same steps.

    Attributes:
        recipe: catalog name.
        runs: how many.
        settings: keys of the recipe that the loss depends on, and their values.
        loss: mean over the runs at each of ``steps``; ``low`` and ``high`` are their extremes.
    """

    recipe: str
    runs: int
    settings: dict[str, Any]
    steps: list[float]
    loss: list[float]
    low: list[float]
    high: list[float]

    @property
    def title(self) -> str:
        return f"{self.runs} run{'s' if self.runs > 1 else ''} of this recipe"

    def band(self, step: float) -> tuple[float, float]:
        """Lowest and highest loss at a step."""
        return _between(self.steps, self.low, step), _between(self.steps, self.high, step)

    def smooth(self, points: Sequence[tuple[float, float]]) -> list[float]:
        """The losses of a run, averaged over as many steps as those of the reference."""
        (first, _), (last, _) = points[0], points[-1]
        apart = (last - first) / max(len(points) - 1, 1) or 1.0
        return smoothed([loss for _, loss in points], self.steps[-1] / SMOOTH / apart)


@lru_cache(maxsize=1)
def references() -> tuple[Reference, ...]:
    """All that the package has."""
    return tuple(Reference(**read_json(path)) for path in sorted(FOLDER.rglob("*.json")))


def settings_of(config: dict[str, Any]) -> dict[str, Any]:
    """The settings of a resolved recipe that its loss depends on, by dotted key."""
    return {
        key: value
        for key, value in leaves_of(config)
        if key not in _NO_MATTER and any(f"{key}.".startswith(f"{name}.") for name in _SECTIONS)
    }


def reference_of(config: dict[str, Any]) -> Reference | None:
    """The reference of a run with this recipe, where there is one."""
    settings = settings_of(config)
    for one in references():
        # A key that is new since, or gone, has the value that it always had.
        if settings and all(
            settings.get(key, value) == value for key, value in one.settings.items()
        ):
            return one
    return None


def beside_reference(run: RunFacts) -> str:
    """A sentence on where the loss is, beside the reference's; empty where there is none."""
    points = [p for p in points_of(run.rows, "loss") if math.isfinite(p[1])]
    reference = reference_of(run.config)
    if reference is None or len(points) < _FEWEST:
        return ""
    step, loss = points[-1][0], reference.smooth(points)[-1]
    low, high = reference.band(step)
    margin = max(_WIDTHS * (high - low), _SHARE * (max(reference.loss) - min(reference.loss)))
    seen = f"Loss {number(loss)} at step {number(step)}"
    others = number(low) if low == high else f"{number(low)} to {number(high)}"
    if low - margin <= loss <= high + margin:
        return f"{seen}; {reference.title} had {others}."
    where = "above" if loss > high else "below"
    return f"{seen} is far {where} the {others} of {reference.title}."


def _between(steps: Sequence[float], values: Sequence[float], step: float) -> float:
    """The value at a step, on the line between its neighbours."""
    after = min(max(bisect_right(steps, step), 1), len(steps) - 1)
    a, b = steps[after - 1], steps[after]
    share = min(max((step - a) / (b - a), 0.0), 1.0)
    return values[after - 1] + share * (values[after] - values[after - 1])
