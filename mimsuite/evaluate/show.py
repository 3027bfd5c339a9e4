"""Print probe results as tables on stderr."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from mimsuite.console import say, stderr, warn
from mimsuite.evaluate.metrics import TOP5
from mimsuite.evaluate.scoring.scorer import Figure
from mimsuite.evaluate.variants import title_of
from mimsuite.text import clean

_MAIN = "balanced_accuracy"  # main figure of results that describe none
_MOST_CLASSES = 20


def show_result(title: str, result: Mapping[str, Any]) -> None:
    """Print the figures of all variants, the gain over each with its interval, and the protocol."""
    figures = _figures_of(result)
    main = next(figure for figure in figures if figure["name"] == result.get("main", _MAIN))
    columns = [figure["title"] for figure in figures]
    rows = {
        variant: [_text(result[figure["name"]][variant], figure) for figure in figures]
        for variant, value in result[main["name"]].items()
        if value is not None
    }
    if result["intervals"]:
        columns.append("gain over it")
        for variant, cells in rows.items():
            cells.append(_gain(result["intervals"].get(variant), main))
    if result.get("chosen"):
        columns.append("chosen on validation")
        for variant, cells in rows.items():
            cells.append(_chosen(result["chosen"].get(variant)))
    table = result_table(title, ["", *columns])
    for variant, cells in rows.items():
        table.add_row(title_of(variant), *cells)
    stderr().print(table)
    classes = f"{result['classes']} classes, " if "classes" in result else ""
    say(
        f"{result['n_train']} training and {result['n_test']} test samples, {classes}"
        f"seed {result['seed']}"
    )
    say(result["protocol"])
    if result["intervals"]:
        name = "balanced accuracy" if main["name"] == _MAIN else main["title"]
        unit = "points" if main["unit"] == "%" else main["unit"]
        say(f"gain: {name} of pretrained minus the row's{unit and ', '}{unit} [95 % interval]")
    for note in result["notes"]:
        warn(note)


def show_report(title: str, result: Mapping[str, Any]) -> None:
    """Print the figures of one trained method."""
    if "per_class" in result and "accuracy" in result:
        show_classes(title, result)
        return
    table = result_table(title, ["", *(figure["title"] for figure in _figures_of(result))])
    table.add_row("", *(_text(result[figure["name"]], figure) for figure in _figures_of(result)))
    stderr().print(table)
    say(f"{result['n_test']} test samples")


def show_classes(title: str, result: Mapping[str, Any]) -> None:
    """Print a classifier's accuracy, in all and by class, worst classes first."""
    table = result_table(title, ["class", "samples", "accuracy"])
    by_class = sorted(result["per_class"].items(), key=lambda item: item[1]["accuracy"])
    for name, figures in by_class[:_MOST_CLASSES]:
        found = percent(figures["accuracy"])
        table.add_row(Text(clean(name)), str(figures["samples"]), found)
    if len(by_class) > _MOST_CLASSES:
        table.add_row(f"... {len(by_class) - _MOST_CLASSES} better ones", "", "")
    stderr().print(table)
    top5 = f"top-5 {percent(result[TOP5])}, " if TOP5 in result else ""
    say(
        f"accuracy {percent(result['accuracy'])}, {top5}"
        f"balanced {percent(result['balanced_accuracy'])} on {result['n_test']} samples"
    )


def result_table(title: str, columns: Sequence[str]) -> Table:
    """An empty table of at most 80 columns, with figures right-aligned."""
    table = Table(
        box=SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        pad_edge=False,
        title=Text(clean(title), "bold"),
        title_justify="left",
    )
    for column in columns:
        figures = column not in ("", "class", "chosen on validation")
        table.add_column(column, justify="right" if figures else "left")
    return table


def percent(fraction: float) -> str:
    """0.8375 -> ``83.75 %``."""
    return f"{100 * fraction:.2f} %"


def _figures_of(result: Mapping[str, Any]) -> Sequence[Mapping[str, str]]:
    """The figures that the result describes, otherwise the accuracies."""
    titles = {"accuracy": "accuracy", _MAIN: "balanced", TOP5: "top-5"}
    known = [
        {"name": name, "title": title, "unit": "%"}
        for name, title in titles.items()
        if name in result
    ]
    return result.get("figures") or known


def _text(value: float, figure: Mapping[str, Any]) -> str:
    return Figure(**figure).text(value)


def _gain(intervals: Mapping[str, Any] | None, figure: Mapping[str, str]) -> str:
    """The gain in percentage points, or in the figure's unit, with its interval."""
    if intervals is None:
        return ""
    gain = intervals[figure["name"]]
    factor = 100 if figure["unit"] == "%" else 1
    value, low, high = (factor * gain[key] for key in ("difference", "low", "high"))
    digits = 1 if figure["unit"] else 3
    return ", ".join([f"{value:+.{digits}f} [{low:+.{digits}f}", f"{high:+.{digits}f}]"])


def _chosen(choice: Mapping[str, Any] | None) -> str:
    if choice is None:
        return ""
    words = [str(choice["features"])] if "features" in choice else []
    for key, word in (("C", "C"), ("alpha", "alpha"), ("learning_rate", "lr")):
        if key in choice:
            words.append(f"{word} {choice[key]:g}")
    return ", ".join(words)
