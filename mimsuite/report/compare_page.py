"""Runs beside each other on one page, and the tables of it that a terminal shows too."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import mimsuite
from mimsuite.console import shown_value
from mimsuite.report.compare import RunResult, differing, paired
from mimsuite.report.html import Markup, document, join, picture, section, table, tag
from mimsuite.report.page import reconstructions
from mimsuite.report.reference import beside_reference
from mimsuite.report.results import probes
from mimsuite.report.slides import SCRIPT
from mimsuite.text import duration, number


def comparison_page(runs: Sequence[RunResult], drawn: bytes) -> str:
    """The page as HTML.

    Args:
        drawn: the curves, as :func:`mimsuite.report.compare.draw_comparison` draws them.
    """
    title = " · ".join(run.name for run in runs)
    head = ("", *(run.name for run in runs))
    lines = [tag("p", paired_line(pair)) for pair in paired(runs)]
    curves = picture(drawn, "Faint: as logged. Bold: smoothed.", chart=True)
    return document(
        title,
        tag("header", tag("h1", title), tag("p", "Runs beside each other", class_="faint")),
        section("Results", join([table(compared(runs, differing(runs)), head), *lines])),
        section("Curves", join([*_beside_references(runs), curves])),
        section("Probes", _side_by_side(runs, [join(probes(run.path)) for run in runs])),
        section("Reconstructions", _side_by_side(runs, [reconstructions(r.path) for r in runs])),
        tag("p", f"mimsuite {mimsuite.__version__}", class_="faint"),
        script=SCRIPT,
    )


def paired_line(pair: dict[str, Any]) -> str:
    """One difference of :func:`mimsuite.report.compare.paired` in words."""
    value, low, high = (100 * pair[key] for key in ("difference", "low", "high"))
    sure = "" if low > 0 or high < 0 else "; not a significant difference"
    return (
        f"{pair['probe']}: {pair['run']} minus {pair['against']} {value:+.1f} points "
        f"[{low:+.1f}, {high:+.1f}], {pair['samples']} paired test samples{sure}"
    )


def _beside_references(runs: Sequence[RunResult]) -> Iterator[Markup]:
    for run in runs:
        if said := beside_reference(run.facts):
            yield tag("p", tag("b", run.name), f": {said}")


def _side_by_side(runs: Sequence[RunResult], parts: Sequence[Markup]) -> Markup:
    """A column for each run, as many in a row as fit; empty where no run has anything."""
    columns = [
        tag("div", tag("h3", run.name), part if part.text else tag("p", "none", class_="faint"))
        for run, part in zip(runs, parts, strict=True)
    ]
    return tag("div", *columns, class_="columns") if any(p.text for p in parts) else Markup("")


def reached(run: RunResult) -> list[tuple[str, str]]:
    """(label, text) of each result of a run; the text is empty if there is none."""
    lowest = ""
    if run.lowest is not None:
        lowest = f"{number(run.lowest)} at step {run.lowest_step}"
    return [
        ("step", "" if run.step is None else str(run.step)),
        ("loss", "" if run.loss is None else number(run.loss)),
        ("lowest", lowest),
        ("took", "" if run.seconds is None else duration(run.seconds)),
        ("best", "" if run.best is None else Path(run.best).name),
        *((name, f"{100 * value:.1f} %") for name, value in run.probes.items()),
    ]


def compared(runs: Sequence[RunResult], differences: dict[str, list[Any]]) -> list[list[str]]:
    """The results of the runs, then the keys in which they differ."""
    results = [dict(reached(run)) for run in runs]
    labels = dict.fromkeys(label for one in results for label in one)
    rows = [["status", *(run.status for run in runs)]]
    rows += [[label, *(one.get(label) or "-" for one in results)] for label in labels]
    rows += [
        [key, *("-" if value is None else shown_value(value) for value in values)]
        for key, values in differences.items()
    ]
    return rows
