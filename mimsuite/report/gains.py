"""What pretraining gained over each baseline, and a plain verdict, from the files of a run.

The intervals are those that the probes wrote: paired bootstrap over the test samples
(:mod:`mimsuite.evaluate.bootstrap`), 95 %. The main figure of a probe counts: balanced accuracy,
where it names no other. Always predicting the largest class is no rival and left out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from mimsuite.evaluate.probes_table import PROBES
from mimsuite.evaluate.variants import RIVALS, title_of
from mimsuite.report.run_facts import read_json

Word = Literal["helps", "not yet", "raw input wins"]

_COMPUTE = "from_scratch_equal_compute"  # the hardest test
LOW_SHOT = {"linear": "linear", "knn": "nearest neighbours", "finetune": "fine-tuning"}
_MAIN = "balanced_accuracy"


@dataclass(frozen=True)
class Gain:
    """A difference to a baseline, in percentage points or the figure's unit, with its interval.

    Attributes:
        probe: in words.
        baseline: one of :data:`RIVALS`.
        figure: in words.
        labels: of low-shot probes, how many of each class.
    """

    probe: str
    baseline: str
    figure: str
    unit: str
    difference: float
    low: float
    high: float
    labels: str = ""

    @property
    def title(self) -> str:
        few = f", {self.labels} a class" if self.labels else ""
        return f"{self.probe}{few}: over {title_of(self.baseline)}"

    @property
    def text(self) -> str:
        """``+4.2 points [+1.0, +7.5]``."""
        bounds = f"[{self.low:+.1f}, {self.high:+.1f}]"
        return f"{self.difference:+.1f} {self.unit} {bounds}"


@dataclass(frozen=True)
class Verdict:
    """A word, the gain that decided it, and a sentence that says why."""

    word: Word
    gain: Gain
    why: str


def read_gains(run: Path) -> list[Gain]:
    """All gains that the probes of a run measured; none without ``--baselines``."""
    found: list[Gain] = []
    for probe in PROBES:
        found += _gains(read_json(run / probe.file), probe.title)
    few = read_low_shot(run)
    for kind, words in LOW_SHOT.items():
        for labels, figures in _items(few.get(kind)):
            intervals = figures.get("intervals") if isinstance(figures, dict) else None
            result = {"intervals": intervals}
            found += _gains(result, f"low-shot, {words}", labels=labels)
    return found


def read_low_shot(run: Path) -> dict[str, Any]:
    """What `mimsuite low-shot` wrote; empty where it was not run."""
    return read_json(run / "low_shot" / "low_shot.json") or read_json(run / "low_shot.json")


def verdict(gains: Sequence[Gain]) -> Verdict | None:
    """Whether pretraining helped, by the hardest test that was made; ``None``: no test was.

    The test is fine-tuning beside training from scratch for equal total compute; without it the
    first that there is of linear, attentive and dense probe, nearest neighbours, low-shot, and
    fine-tuning at equal steps. "helps": the whole interval is above zero, for every baseline of the
    test. "raw input wins": the whole interval over raw input is below zero. Else "not yet".
    """

    def hardness(gain: Gain) -> float:
        if gain.baseline == _COMPUTE:
            return math.inf
        return next(probe.hardness for probe in PROBES if gain.probe.startswith(probe.title))

    if not gains:
        return None
    first = max(gains, key=hardness)
    test = [gain for gain in gains if hardness(gain) == hardness(first)]
    if len({gain.probe for gain in test}) > 1:  # several kinds of low-shot probe
        test = [gain for gain in test if gain.probe == first.probe]
    lost = [gain for gain in test if gain.baseline == "raw_input" and gain.high < 0]
    worst = min(lost or test, key=lambda gain: gain.low)
    if lost:
        return Verdict("raw input wins", worst, "the whole interval is below zero")
    if worst.low > 0:
        return Verdict("helps", worst, "the whole interval is above zero, for every baseline")
    why = "is below zero" if worst.high < 0 else "holds zero"
    return Verdict("not yet", worst, f"the interval {why}")


def _gains(result: dict[str, Any], probe: str, labels: str = "") -> list[Gain]:
    """Of one result, for the baselines that are known."""
    main = str(result.get("main", _MAIN))
    title, unit = _described(result, main)
    factor = 100.0 if unit == "points" else 1.0
    found = []
    for baseline, figures in _items(result.get("intervals")):
        interval = figures.get(main) if isinstance(figures, dict) else None
        if baseline not in RIVALS or not isinstance(interval, dict):
            continue
        numbers = [interval.get(key) for key in ("difference", "low", "high")]
        values = [factor * n for n in numbers if isinstance(n, int | float) and math.isfinite(n)]
        if len(values) == len(numbers):
            difference, low, high = values
            found.append(Gain(probe, baseline, title, unit, difference, low, high, labels))
    return found


def _described(result: dict[str, Any], main: str) -> tuple[str, str]:
    """Title and unit of a figure, by the result's own description."""
    figures = result.get("figures")
    for figure in figures if isinstance(figures, list) else []:
        if isinstance(figure, dict) and figure.get("name") == main:
            unit = str(figure.get("unit", "%"))
            return str(figure.get("title", main)), "points" if unit == "%" else unit
    return main.replace("_", " "), "points"


def _items(value: Any) -> list[tuple[str, Any]]:
    return [(str(key), item) for key, item in value.items()] if isinstance(value, dict) else []
