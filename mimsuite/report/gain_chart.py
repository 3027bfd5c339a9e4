"""Gains over the baselines as a picture: a dot and its interval each, zero as the line to pass."""

from __future__ import annotations

import io
from collections.abc import Sequence

from mimsuite.report.curves import COLOURS, figure_style
from mimsuite.report.gains import Gain
from mimsuite.text import clean

_GOOD, _BAD = "#047857", "#b91c1c"


def draw_gains(gains: Sequence[Gain]) -> bytes | None:
    """Gains in percentage points as PNG; ``None`` where there are none in that unit.

    Above zero green, below it red, both with the whole interval; else gray.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    shown = [gain for gain in gains if gain.unit == "points"][::-1]
    if not shown:
        return None
    with rc_context(figure_style()):
        figure = Figure(figsize=(6.4, 0.7 + 0.24 * len(shown)), dpi=220, layout="constrained")
        axes = figure.subplots()
        for row, gain in enumerate(shown):
            colour = COLOURS["mark"]
            if gain.low > 0 or gain.high < 0:
                colour = _GOOD if gain.low > 0 else _BAD
            axes.plot([gain.low, gain.high], [row, row], color=colour, linewidth=1.6)
            axes.plot([gain.difference], [row], color=colour, marker="o", markersize=4)
        axes.axvline(0, color=COLOURS["ink"], linewidth=0.8)
        axes.set_yticks(range(len(shown)), [_plain(gain.title) for gain in shown])
        axes.tick_params(axis="y", length=0, labelsize=7.5)
        axes.grid(axis="y", visible=False)
        axes.set_ylim(-0.7, len(shown) - 0.3)
        axes.set_xlabel("gain in percentage points, with its 95 % interval")
        data = io.BytesIO()
        figure.savefig(data, format="png")
    return data.getvalue()


def _plain(text: str) -> str:
    """The text without what matplotlib would read as mathematics."""
    return clean(text).replace("$", r"\$")
