"""What a run's probes found, as parts of a page: verdict, gains over the baselines, tables."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from mimsuite.console import shown_value
from mimsuite.evaluate.probes_table import PROBES
from mimsuite.evaluate.variants import RIVALS, TITLES, title_of
from mimsuite.report.gain_chart import draw_gains
from mimsuite.report.gains import LOW_SHOT, Gain, read_gains, read_low_shot, verdict
from mimsuite.report.html import Markup, join, picture, preformatted, section, table, tag
from mimsuite.report.run_facts import lookup, read_json, read_yaml

_COLOURS = {"helps": "done", "not yet": "preempted", "raw input wins": "failed"}
_FIGURE = "balanced_accuracy"  # main figure of low-shot probes
_VARIANTS = ("pretrained", *RIVALS)


def results(run: Path, *, ask: bool) -> list[Markup]:
    """The verdict, the gains that it rests on, and the figures of each probe.

    Args:
        ask: where nothing was measured, say by which commands it is.
    """
    gains = read_gains(run)
    return [
        section("Verdict", join(_verdict(run, gains) if gains or ask else ())),
        section("Against the baselines", join(_gains(gains))),
        section("Low-shot", join(_low_shot(run))),
        section("Probes", join(probes(run))),
    ]


def _verdict(run: Path, gains: Sequence[Gain]) -> Iterator[Markup]:
    found = verdict(gains)
    if found is None:
        yield tag("p", "None: nothing was measured beside a baseline. These commands do:")
        yield preformatted("\n".join(_commands(run)))
        return
    yield tag("p", tag("span", found.word, class_=f"badge {_COLOURS[found.word]}"))
    yield tag(
        "p",
        f"{found.gain.title}: ",
        tag("b", found.gain.text),
        f" of {found.gain.figure}; {found.why}.",
    )
    compute = any(gain.baseline == "from_scratch_equal_compute" for gain in gains)
    if not compute:
        text = (
            "Of this use of the features only. Whether pretraining pays, its own cost counted, is "
            "decided by fine-tuning beside training from scratch at equal total compute, which was "
            "not measured:"
        )
        yield tag("p", text, class_="faint")
        yield preformatted(_commands(run)[-1])


def _commands(run: Path) -> list[str]:
    source = shlex.quote(str(lookup(read_yaml(run / "config.yaml"), "data.source") or "SRC"))
    where = shlex.quote(str(run))
    return [
        f"mimsuite linear-probe {where} --data {source} --baselines",
        f"mimsuite finetune {where} --data {source} --baselines --equal-compute --rates 0.3,1,3",
    ]


def _gains(gains: Sequence[Gain]) -> Iterator[Markup]:
    if not gains:
        return
    chart = draw_gains(gains)
    if chart is not None:
        caption = "Pretrained minus baseline on the same test samples. Green: surely more."
        yield picture(chart, caption, chart=True)
    rows = [(gain.title, _number(gain.text), gain.figure) for gain in gains]
    listed = table(rows, ("", "gain [95 % interval]", "figure"))
    yield tag("details", tag("summary", "in figures"), listed)
    text = "Intervals: paired bootstrap over test samples (and draws, of low-shot probes)."
    yield tag("p", text, class_="faint")


def _low_shot(run: Path) -> Iterator[Markup]:
    result = read_low_shot(run)
    chart = run / "low_shot" / "curve.png"
    if result and chart.is_file():
        yield picture(chart.read_bytes(), "Mean over the draws of labels, their range shaded")
    for kind, words in LOW_SHOT.items():
        found = result.get(kind)
        amounts = {
            str(amount): figures[_FIGURE]
            for amount, figures in (found.items() if isinstance(found, dict) else ())
            if isinstance(figures, dict) and isinstance(figures.get(_FIGURE), dict)
        }
        variants = [name for name in _VARIANTS if any(name in one for one in amounts.values())]
        rows = [
            (amount, *(_spread(one.get(name)) for name in variants))
            for amount, one in amounts.items()
        ]
        if rows:
            yield tag("h3", f"{words}, class-balanced accuracy: mean (lowest to highest draw)")
            yield table(rows, ("labels a class", *(title_of(name) for name in variants)))


def _spread(value: Any) -> Markup:
    found = [value.get(key) for key in ("mean", "min", "max")] if isinstance(value, dict) else []
    numbers = [100 * number for number in found if isinstance(number, int | float)]
    if len(numbers) < 3:
        return Markup("-")
    mean, low, high = numbers
    return _number(f"{mean:.1f} % ({low:.1f} to {high:.1f})")


def _number(text: str) -> Markup:
    return tag("span", text, class_="number")


def probes(path: Path) -> Iterator[Markup]:
    """A table for each probe of the run."""
    for probe in PROBES:
        title, result = probe.title.capitalize(), read_json(path / probe.file)
        accuracy, balanced = (
            value if isinstance(value := result.get(key), dict) else {}
            for key in ("accuracy", "balanced_accuracy")
        )
        if not accuracy:
            yield from _described(title, result)
            continue
        yield tag("h3", title)
        names = [*TITLES, *(name for name in accuracy if name not in TITLES)]
        rows = [
            (
                title_of(name),
                _percent(accuracy[name]),
                _percent(balanced.get(name)),
                _bar(accuracy[name], ours=name == "pretrained"),
            )
            for name in names
            if name in accuracy
        ]
        yield table(rows, ("", "accuracy", "class-balanced", ""))
        yield _measured(result)


def _described(title: str, result: dict[str, Any]) -> Iterator[Markup]:
    """Of results that say which figures they have."""
    figures = result.get("figures")
    if not isinstance(figures, list):
        return
    figures = [figure for figure in figures if isinstance(figure, dict)]
    known = [figure for figure in figures if isinstance(result.get(figure.get("name")), dict)]
    names = [name for name in result[known[0]["name"]]] if known else []
    rows = [
        (title_of(name), *(_figure(result[f["name"]].get(name), f) for f in known))
        for name in names
        if result[known[0]["name"]][name] is not None
    ]
    if rows:
        yield tag("h3", title)
        yield table(rows, ("", *(figure.get("title", "") for figure in known)))
        yield _measured(result)


def _measured(result: dict[str, Any]) -> Markup:
    """How figures were made, and what their reader must know."""
    counts = f"{result.get('n_train', '?')} training and {result.get('n_test', '?')} test samples"
    protocol, notes = result.get("protocol"), result.get("notes")
    text = protocol if isinstance(protocol, str) else shown_value(protocol) if protocol else ""
    more = "".join(f" {note}." for note in notes) if isinstance(notes, list) else ""
    return tag("p", f"{counts}. {text}{more}", class_="faint")


def _figure(value: Any, figure: dict[str, Any]) -> Markup:
    if figure.get("unit") == "%" or not isinstance(value, int | float):
        return _percent(value)
    unit = figure.get("unit", "")
    return tag("span", f"{value:.2f} {unit}" if unit else f"{value:.4g}", class_="number")


def _percent(value: Any) -> Markup:
    known = isinstance(value, int | float)
    return Markup(f'<span class="number">{100 * value:.1f} %</span>' if known else "-")


def _bar(value: Any, *, ours: bool) -> Markup:
    width = 100 * min(max(value, 0.0), 1.0) if isinstance(value, int | float) else 0.0
    fill = tag("i", style=f"width:{width:.1f}%")
    return tag("div", fill, class_="bar ours" if ours else "bar")
