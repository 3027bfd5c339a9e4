"""Runs beside each other: the keys in which they differ, their curves, and what they reached."""

from __future__ import annotations

import io
import itertools
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mimsuite.errors import UserError
from mimsuite.evaluate.probes_table import PROBES
from mimsuite.report.braille import plot
from mimsuite.report.curves import (
    COLOURS,
    FEW,
    PANELS,
    draw_reference,
    figure_style,
    number_steps,
)
from mimsuite.report.reference import reference_of
from mimsuite.report.run_facts import RunFacts, leaves_of, read_json
from mimsuite.report.smoothing import SMOOTH, points_of, smoothed
from mimsuite.text import number

# That differ between any two runs, or follow from other keys.
_OWN_BUSINESS = ("smoke.", "recipe.")
_COLOURS = ("#2563eb", "#d97706", "#059669", "#db2777", "#7c3aed", "#0891b2", "#65a30d", "#dc2626")
_MEAN_LOSS = "mean_loss"  # key in a checkpoint's state.json: mean over steps since the last save


@dataclass(frozen=True)
class RunResult:
    """Result of a run.

    Attributes:
        name: shortest name that is unique among the compared runs.
        status: ``DONE``, ``PREEMPTED``, ``FAILED``, or ``not finished``.
        loss: loss of the last logged step; ``lowest`` is the minimum, at ``lowest_step``.
        seconds: from its start to its end.
        best: the kept checkpoint with the lowest mean training loss since the previous save;
            ``None``: no checkpoint has a loss.
        probes: accuracy in [0, 1] on labelled test data, by probe.
    """

    path: Path
    name: str
    facts: RunFacts
    status: str
    step: int | None
    loss: float | None
    lowest: float | None
    lowest_step: int | None
    seconds: float | None
    best: str | None
    probes: dict[str, float]

    def as_dict(self) -> dict[str, Any]:
        hidden = ("facts", "path")
        return {
            "path": str(self.path),
            **{name: value for name, value in vars(self).items() if name not in hidden},
        }


def read_runs(paths: Sequence[Path]) -> list[RunResult]:
    """Read run directories.

    Raises:
        UserError: one of them is none.
    """
    for path in paths:
        if not (path / "config.yaml").is_file():
            raise UserError(f"{path} is no run directory: it has no config.yaml")
    return [_read(path, name) for path, name in zip(paths, _names(paths), strict=True)]


def differing(runs: Sequence[RunResult]) -> dict[str, list[Any]]:
    """The recipe's keys whose values differ between runs; ``None`` where one has none."""
    values = [dict(leaves_of(run.facts.config)) for run in runs]
    keys = dict.fromkeys(key for one in values for key in one)
    return {
        key: [one.get(key) for one in values]
        for key in keys
        if not key.startswith(_OWN_BUSINESS)
        and len({json.dumps(one.get(key), default=str) for one in values}) > 1
    }


def paired(runs: Sequence[RunResult]) -> list[dict[str, Any]]:
    """Each other run against the first, by the probes that judged the same test samples in both.

    Balanced accuracy of the pretrained encoders, as a difference with its 95 % interval by the
    paired bootstrap; samples count as the same where their labels are, in order.

    Returns:
        rows of ``probe``, ``run``, ``against``, and what an
        :class:`~mimsuite.evaluate.bootstrap.Interval` has.
    """
    found = []
    for probe in PROBES:
        first, *others = [_judged(run.path / probe.file) for run in runs]
        for run, other in zip(runs[1:], others, strict=True):
            if first is None or other is None or first[1] != other[1]:
                continue
            import torch  # only where there is something to draw from

            from mimsuite.evaluate.bootstrap import balancing_weights, paired_interval

            marks = [torch.tensor([mark == "1" for mark in one[0]]) for one in (other, first)]
            weights = balancing_weights(torch.tensor(first[1]))
            interval = paired_interval(*marks, weights=weights)
            names = {"probe": probe.title, "run": run.name, "against": runs[0].name}
            found.append(names | interval.as_dict())
    return found


def _judged(path: Path) -> tuple[str, list[int]] | None:
    """Marks (1: right) and labels of a probe's test samples; ``None``: not written."""
    result = read_json(path)
    right, labels = result.get("right"), result.get("labels")
    marks = right.get("pretrained") if isinstance(right, dict) else None
    if not isinstance(marks, str) or not isinstance(labels, list) or not labels:
        return None
    if len(marks) != len(labels) or not all(isinstance(label, int) for label in labels):
        return None
    return marks, labels


def text_curves(runs: Sequence[RunResult], width: int = 64, height: int = 8) -> list[str]:
    """The loss of each run, all on the same axes, as lines of text."""
    series = {run.name: points_of(run.facts.rows, "loss") for run in runs}
    found = [point for points in series.values() for point in points if math.isfinite(point[1])]
    if not found:
        return []
    steps, losses = zip(*found, strict=True)
    x, y = (min(steps), max(steps)), (min(losses), max(losses))
    marks = [number(value) for value in (y[1], y[0])]
    margin = max(map(len, marks))
    lines = []
    for name, points in series.items():
        lines.append(f"{'':{margin}}   loss of {name}")
        for row, text in enumerate(plot(points, width, height, x, y)):
            mark = marks[0] if row == 0 else marks[1] if row == height - 1 else ""
            lines.append(f"{mark:>{margin}} |{text}")
    first, last = number(x[0]), f"step {number(x[1])}"
    return [*lines, f"{'':{margin}}  {first}{last:>{width - len(first)}}"]


def draw_comparison(runs: Sequence[RunResult]) -> bytes | None:
    """Loss, learning rate and gradient norm of all runs as PNG; ``None``: nothing was logged.

    Where all have the settings of one reference, it lies behind their losses.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    if not any(run.facts.rows for run in runs):
        return None
    found = [reference_of(run.facts.config) for run in runs]
    reference = found[0] if all(one == found[0] for one in found) else None
    with rc_context(figure_style()):
        figure = Figure(figsize=(7.2, 5.2), dpi=200, layout="constrained")
        axes = figure.subplot_mosaic([["loss", "loss"], ["lr", "grad_norm"]], height_ratios=[3, 2])
        if reference is not None:
            points = [p for run in runs for p in points_of(run.facts.rows, "loss")]
            draw_reference(axes["loss"], reference, COLOURS["mark"], points)
        for metric, title in PANELS:
            drawn: list[float] = []
            for run, colour in zip(runs, itertools.cycle(_COLOURS), strict=False):
                drawn += _draw(axes[metric], run, metric, colour)
            axes[metric].set_title(title, loc="left")
            number_steps(axes[metric])
            if metric != "lr" and drawn and min(drawn) > 0 and max(drawn) > 20 * min(drawn):
                axes[metric].set_yscale("log")
        figure.legend(
            *axes["loss"].get_legend_handles_labels(),
            loc="outside upper center",
            ncols=min(4, len(runs)),
            frameon=False,
        )
        data = io.BytesIO()
        figure.savefig(data, format="png")
    return data.getvalue()


def _draw(axes: Any, run: RunResult, metric: str, colour: str) -> list[float]:
    points = points_of(run.facts.rows, metric)
    steps, values = [step for step, _ in points], [value for _, value in points]
    if len(points) >= FEW and metric != "lr":
        axes.plot(steps, values, color=colour, alpha=0.25, linewidth=0.6)
        values = smoothed(values, len(values) / SMOOTH)
    axes.plot(steps, values, color=colour, linewidth=1.5, label=run.name)
    return [value for value in values if math.isfinite(value)]


def _read(path: Path, name: str) -> RunResult:
    facts = RunFacts.read(path)
    losses = [point for point in points_of(facts.rows, "loss") if math.isfinite(point[1])]
    lowest = min(losses, key=lambda point: point[1], default=None)
    ended = facts.status
    last = facts.rows[-1].get("step") if facts.rows else None
    step = ended[1].get("step", last) if ended else last
    return RunResult(
        path=path,
        name=name,
        facts=facts,
        status=ended[0] if ended else "not finished",
        step=step if isinstance(step, int) else None,
        loss=losses[-1][1] if losses else None,
        lowest=lowest[1] if lowest else None,
        lowest_step=int(lowest[0]) if lowest else None,
        seconds=facts.seconds(),
        best=_best(path),
        probes=_probes(path),
    )


def _best(run: Path) -> str | None:
    found = []
    for path in (run / "checkpoints").glob("step-*"):
        loss = read_json(path / "state.json").get(_MEAN_LOSS)
        if isinstance(loss, int | float) and math.isfinite(loss):
            found.append((loss, path))
    return str(min(found)[1]) if found else None


def _probes(run: Path) -> dict[str, float]:
    found = {}
    for probe in PROBES:
        accuracy = read_json(run / probe.file).get("accuracy")
        value = accuracy.get("pretrained") if isinstance(accuracy, dict) else None
        if isinstance(value, int | float):
            found[probe.title] = float(value)
    return found


def _names(paths: Sequence[Path]) -> list[str]:
    """Their last parts, as many as tell them apart."""
    whole = [path.resolve().parts for path in paths]
    for count in range(1, max(map(len, whole)) + 1):
        names = ["/".join(parts[-count:]) for parts in whole]
        if len(set(names)) == len(set(whole)):
            return names
    return ["/".join(parts) for parts in whole]
