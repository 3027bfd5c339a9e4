"""Results of probes as tables for people, on stderr."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from mimsuite.report.console import say, stderr, warn
from mimsuite.report.text import clean

_WORDS = {
    "pretrained": "pretrained",
    "random_init": "random init",
    "raw_input": "raw input",
    "majority": "majority",
    "from_scratch": "from scratch",
    "from_scratch_equal_compute": "scratch, equal compute",
}
_MOST_CLASSES = 20


def show_result(title: str, result: Mapping[str, Any]) -> None:
    """Accuracies of all variants, the gain over each with its interval, and how it was measured."""
    columns = ["accuracy", "balanced"]
    rows = {
        variant: [percent(accuracy), percent(result["balanced_accuracy"][variant])]
        for variant, accuracy in result["accuracy"].items()
        if accuracy is not None
    }
    if result["intervals"]:
        columns.append("gain over it")
        for variant, cells in rows.items():
            cells.append(_gain(result["intervals"].get(variant)))
    if result.get("chosen"):
        columns.append("chosen on validation")
        for variant, cells in rows.items():
            cells.append(_chosen(result["chosen"].get(variant)))
    table = _table(title, ["", *columns])
    for variant, cells in rows.items():
        table.add_row(_WORDS.get(variant, variant), *cells)
    stderr().print(table)
    say(
        f"{result['n_train']} training and {result['n_test']} test samples, "
        f"{result['classes']} classes, seed {result['seed']}"
    )
    say(result["protocol"])
    if result["intervals"]:
        say("gain: balanced accuracy of pretrained minus the row's, points [95 % interval]")
    for note in result["notes"]:
        warn(note)


def show_classes(title: str, result: Mapping[str, Any]) -> None:
    """Accuracy of a classifier, in all and by class, the worst classes first."""
    table = _table(title, ["class", "samples", "accuracy"])
    by_class = sorted(result["per_class"].items(), key=lambda item: item[1]["accuracy"])
    for name, figures in by_class[:_MOST_CLASSES]:
        found = percent(figures["accuracy"])
        table.add_row(Text(clean(name)), str(figures["samples"]), found)
    if len(by_class) > _MOST_CLASSES:
        table.add_row(f"... {len(by_class) - _MOST_CLASSES} better ones", "", "")
    stderr().print(table)
    say(
        f"accuracy {percent(result['accuracy'])}, balanced {percent(result['balanced_accuracy'])} "
        f"on {result['n_test']} samples"
    )


def _table(title: str, columns: Sequence[str]) -> Table:
    """An empty table that stays within 80 columns; figures to the right."""
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


def _gain(intervals: Mapping[str, Any] | None) -> str:
    """In percentage points, with the bounds of the interval."""
    if intervals is None:
        return ""
    gain = intervals["balanced_accuracy"]
    return f"{100 * gain['difference']:+.1f} [{100 * gain['low']:+.1f}, {100 * gain['high']:+.1f}]"


def _chosen(choice: Mapping[str, Any] | None) -> str:
    if choice is None:
        return ""
    words = [str(choice["features"])] if "features" in choice else []
    for key, word in (("learning_rate", "lr"), ("weight_decay", "wd")):
        if key in choice:
            words.append(f"{word} {choice[key]:g}")
    return ", ".join(words)
