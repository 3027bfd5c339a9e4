"""Show low-shot results: tables on stderr, and the learning curve as a picture."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

from mimsuite.console import say, stderr, warn
from mimsuite.evaluate.show import result_table
from mimsuite.evaluate.variants import title_of
from mimsuite.report.curves import COLOURS, figure_style

KINDS = {"linear": "linear probe", "knn": "nearest neighbours", "finetune": "fine-tuning"}
_FIGURE = "balanced_accuracy"
_GAIN_OVER = ("random_init", "from_scratch")  # the gain over raw input is only in the file
_COLOURS = {
    "pretrained": "#2563eb",
    "random_init": "#d97706",
    "raw_input": "#059669",
    "from_scratch": "#d97706",
}


def show_low_shot(title: str, result: Mapping[str, Any]) -> None:
    """Print a table per probe: mean and range for each amount of labels and each variant."""
    for kind, words in KINDS.items():
        if kind not in result:
            continue
        by_amount = result[kind]
        variants = list(next(iter(by_amount.values()))[_FIGURE])
        others = [name for name in variants if name in _GAIN_OVER]
        columns = ["labels", *map(title_of, variants), *(f"over {title_of(o)}" for o in others)]
        table = result_table(f"{title}: {words}, balanced accuracy in %", columns)
        for amount, figures in by_amount.items():
            cells = [_range(figures[_FIGURE][name]) for name in variants]
            gains = [_gain(figures["intervals"][name][_FIGURE]) for name in others]
            samples = result["amounts"][amount]["samples"]
            table.add_row(f"{amount} ({samples})", *cells, *gains)
        stderr().print(table)
        say(result["protocol"][kind])
    say(
        f"labels of each class (in all); mean (lowest-highest) over draws {result['draws'][0]} to "
        f"{result['draws'][-1]}; gains in points [95 % interval]; {result['n_test']} test samples, "
        f"scored once a draw"
    )
    for note in result["notes"]:
        warn(note)


def draw_low_shot(result: Mapping[str, Any]) -> bytes:
    """The learning curves as PNG: mean over draws, their range shaded, chance dotted."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    kinds = [kind for kind in KINDS if kind in result]
    with rc_context(figure_style()):
        figure = Figure(figsize=(3.4 * len(kinds), 3.2), dpi=220, layout="constrained")
        panels = figure.subplots(1, len(kinds), sharey=True, squeeze=False)[0]
        for kind, axes in zip(kinds, panels, strict=True):
            by_amount = result[kind]
            samples = {amount: result["amounts"][amount]["samples"] for amount in by_amount}
            counts = sorted(set(samples.values()))  # amounts of equal count have equal draws
            order = [next(a for a in samples if samples[a] == count) for count in counts]
            for name in by_amount[order[0]][_FIGURE]:
                found = [by_amount[amount][_FIGURE][name] for amount in order]
                mean, low, high = ([100 * f[key] for f in found] for key in ("mean", "min", "max"))
                colour = _COLOURS[name]
                label = title_of(name)
                axes.plot(counts, mean, color=colour, marker="o", markersize=3, label=label)
                axes.fill_between(counts, low, high, color=colour, alpha=0.15, linewidth=0)
            chance, mark = 100 / result["classes"], COLOURS["mark"]
            axes.axhline(chance, color=mark, linestyle=":", linewidth=0.9)
            axes.set_xscale("log")
            axes.set_xticks(counts, [str(count) for count in counts], minor=False)
            axes.minorticks_off()
            axes.set_xlabel("labelled samples")
            axes.set_title(KINDS[kind], loc="left")
            axes.legend(frameon=False, fontsize=7.5, loc="lower right")
        panels[0].set_ylabel("balanced accuracy, %")
        data = io.BytesIO()
        figure.savefig(data, format="png")
    return data.getvalue()


def _range(spread: Mapping[str, float]) -> str:
    mean, low, high = (100 * spread[key] for key in ("mean", "min", "max"))
    return f"{mean:.1f} ({low:.1f}-{high:.1f})"


def _gain(interval: Mapping[str, float]) -> str:
    value, low, high = (100 * interval[key] for key in ("difference", "low", "high"))
    return f"{value:+.1f} [{low:+.1f}, {high:+.1f}]"
