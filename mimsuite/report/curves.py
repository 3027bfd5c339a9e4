"""Curves of a run: loss, learning rate and gradient norm over steps."""

from __future__ import annotations

import io
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mimsuite.console import warn
from mimsuite.files import write_atomic
from mimsuite.report.files import read_lines
from mimsuite.report.reference import Reference, reference_of
from mimsuite.report.run_facts import read_yaml
from mimsuite.report.smoothing import SMOOTH, points_of, smoothed

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PANELS = (("loss", "loss"), ("lr", "learning rate"), ("grad_norm", "gradient norm"))
COLOURS = {"paper": "#ffffff", "ink": "#1f2937", "faint": "#e5e7eb", "mark": "#9ca3af"}
COLOURS |= {"loss": "#2563eb", "lr": "#d97706", "grad_norm": "#059669"}
# Measured where `log.signals_every_epochs` asks for them.
SIGNALS = (("rankme", "RankMe"), ("lidar", "LiDAR"))
COLOURS |= {"rankme": "#7c3aed", "lidar": "#db2777"}
# Measured where `log.probe_every_epochs` asks for them.
ONLINE_PROBES = (("probe/knn", "kNN"), ("probe/linear", "linear"))
COLOURS |= {"probe/knn": "#0891b2", "probe/linear": "#be123c"}
_EXTRA = {
    "signals": (SIGNALS, "feature rank (diagnostic)"),
    "probes": (ONLINE_PROBES, "probe accuracy while training"),
}
FEW = 40  # rows, below which they are drawn as they are, with dots


def save_curves(run_dir: str | Path) -> bytes | None:
    """Draw ``images/curves.png`` from ``metrics.jsonl``.

    Returns:
        The picture, also where it cannot be written, which is warned of: the run is what counts;
        ``None`` where there is nothing to draw.
    """
    run_dir = Path(run_dir)
    picture = draw_curves(run_dir)
    if picture is None:
        return None
    path = run_dir / "images" / "curves.png"
    try:
        path.parent.mkdir(exist_ok=True)
        write_atomic(path, picture)
    except OSError as error:
        warn(f"cannot write {path}: {error.strerror}")
    return picture


def draw_curves(run_dir: Path) -> bytes | None:
    """The curves as PNG: raw values faint, smoothed ones on top, resumes as dotted lines.

    The loss of healthy runs of the same recipe, where the package has them, lies behind.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    rows = list(read_lines(run_dir / "metrics.jsonl"))
    series = {name: points_of(rows, name) for name, _ in (*PANELS, *SIGNALS, *ONLINE_PROBES)}
    if not any(points for points in series.values()):
        return None
    resumes = [row["step"] for row in read_lines(run_dir / "events.jsonl") if _is_resume(row)]
    with rc_context(figure_style()):
        figure = Figure(figsize=(6.4, 4.4), dpi=220, layout="constrained")
        extra = [panel for panel in _EXTRA if any(series[name] for name, _ in _EXTRA[panel][0])]
        axes = figure.subplot_mosaic(_layout(extra), height_ratios=[3, 2])
        if (reference := reference_of(read_yaml(run_dir / "config.yaml"))) is not None:
            draw_reference(axes["loss"], reference, COLOURS["mark"], series["loss"])
            axes["loss"].legend(frameon=False)
        for name, title in PANELS:
            _draw(axes[name], series[name], title, COLOURS[name], smooth=name != "lr")
        for panel in extra:
            _draw_measured(axes[panel], *_EXTRA[panel], series)
        for shown in axes.values():
            number_steps(shown)
            for step in resumes:
                shown.axvline(step, color=COLOURS["mark"], linestyle=":", linewidth=0.8)
        data = io.BytesIO()
        figure.savefig(data, format="png")
    return data.getvalue()


def number_steps(axes: Axes) -> None:
    """Steps along a panel, as whole numbers."""
    from matplotlib.ticker import MaxNLocator

    axes.set_xlabel("step")
    axes.xaxis.set_major_locator(MaxNLocator("auto", steps=[1, 2, 5, 10], integer=True))
    axes.margins(x=0.02)


def draw_reference(
    axes: Axes, reference: Reference, colour: str, points: list[tuple[float, float]]
) -> None:
    """The mean and the band of other runs; of what is to come, three times what there is."""
    ends = [step for step in reference.steps if step <= 4 * max((s for s, _ in points), default=1)]
    shown = slice(max(len(ends), 2))
    steps, mean = reference.steps[shown], reference.loss[shown]
    band = reference.low[shown], reference.high[shown]
    axes.fill_between(steps, *band, color=colour, alpha=0.35, linewidth=0)
    axes.plot(steps, mean, color=colour, linewidth=1.0, label=reference.title)


def _draw(
    axes: Axes, points: list[tuple[float, float]], title: str, colour: str, *, smooth: bool
) -> None:
    steps, values = [step for step, _ in points], [value for _, value in points]
    finite = [value for value in values if math.isfinite(value)]
    if not finite:
        axes.set_title(title, loc="left")
        axes.text(0.5, 0.5, "no finite values", ha="center", va="center", transform=axes.transAxes)
        return
    # A power of ten in the title is easier to read than at every tick.
    power = math.floor(math.log10(max(map(abs, finite)) or 1.0))
    if -3 < power < 4:
        power = 0
    values = [value / 10.0**power for value in values]
    axes.set_title(f"{title} ($\\times 10^{{{power}}}$)" if power else title, loc="left")
    if len(finite) < FEW:
        axes.plot(steps, values, color=colour, marker="o", markersize=2.5, linewidth=1.2)
    else:
        if smooth:
            axes.plot(steps, values, color=colour, alpha=0.35, linewidth=0.7)
            values = smoothed(values, len(values) / SMOOTH)
        axes.plot(steps, values, color=colour, linewidth=1.6)
    if smooth and min(finite) > 0 and max(finite) > 20 * min(finite):
        axes.set_yscale("log")
    if not smooth:
        axes.set_ylim(bottom=0)


def _layout(extra: list[str]) -> Any:
    """Two rows of panels: the loss, in all the room that is left, over rate and gradient norm."""
    top = {0: ["loss", "loss"], 1: ["loss", *extra], 2: ["loss", "loss", *extra]}[len(extra)]
    return [top, ["lr"] * (len(top) // 2) + ["grad_norm"] * (len(top) // 2)]


def _draw_measured(
    axes: Axes,
    columns: tuple[tuple[str, str], ...],
    heading: str,
    series: dict[str, list[tuple[float, float]]],
) -> None:
    """What is measured now and then, each measurement a dot."""
    for name, title in columns:
        if points := series[name]:
            steps, values = zip(*points, strict=True)
            dots = axes.plot(steps, values, color=COLOURS[name], marker="o", markersize=2.5)
            dots[0].set_label(title)
    axes.set_title(heading, loc="left")
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False)


def _is_resume(row: dict[str, Any]) -> bool:
    return row.get("event") == "resume" and isinstance(row.get("step"), int | float)


def figure_style() -> Any:
    """Settings of matplotlib for figures of this look."""
    return {
        "font.size": 8.5,
        "axes.titlesize": 9.5,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.edgecolor": COLOURS["mark"],
        "axes.labelcolor": COLOURS["ink"],
        "axes.facecolor": COLOURS["paper"],
        "axes.grid": True,
        "axes.axisbelow": True,
        "grid.color": COLOURS["faint"],
        "grid.linewidth": 0.6,
        "figure.facecolor": COLOURS["paper"],
        "savefig.facecolor": COLOURS["paper"],
        "text.color": COLOURS["ink"],
        "xtick.color": COLOURS["ink"],
        "ytick.color": COLOURS["ink"],
    }
