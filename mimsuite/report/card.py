"""``card.html``: whether pretraining was worth it, on one page that loads nothing else."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import mimsuite
from mimsuite.errors import UserError
from mimsuite.evaluate.variants import RIVALS, title_of
from mimsuite.files import write_atomic
from mimsuite.report.gain_chart import draw_gains
from mimsuite.report.gains import LOW_SHOT, Gain, read_gains, read_low_shot, verdict
from mimsuite.report.html import Markup, document, join, picture, preformatted, table, tag
from mimsuite.report.page import curves, header, key_figures, probes, reconstructions, section
from mimsuite.report.run_facts import RunFacts, lookup

_COLOURS = {"helps": "done", "not yet": "preempted", "raw input wins": "failed"}
_FIGURE = "balanced_accuracy"  # of low-shot probes
_VARIANTS = ("pretrained", *RIVALS)
_RANKS = (
    "RankMe and LiDAR are diagnostics: whether they order runs as a probe does depends on the data "
    "and on what is compared."
)


def write_card(run_dir: Path, out: Path | None = None) -> Path:
    """Write the report card of a run from what is in its directory.

    Args:
        out: the page; ``None`` = ``card.html`` in the run.

    Raises:
        UserError: no run directory, or the page cannot be written.
    """
    if not (run_dir / "config.yaml").is_file():
        raise UserError(f"{run_dir} is no run directory: it has no config.yaml")
    path = out or run_dir / "card.html"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return write_atomic(path, card(run_dir))
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}") from error


def card(run_dir: Path) -> str:
    """The page; parts without files to show are left out."""
    run = RunFacts.read(run_dir)
    name = run.key("recipe.title") or run_dir.resolve().name
    gains = read_gains(run_dir)
    ranks = run.column("rankme") or run.column("lidar")
    return document(
        name,
        header(run, name),
        section("Verdict", join(_verdict(run_dir, gains))),
        section("Against the baselines", join(_gains(gains))),
        section("Low-shot", join(_low_shot(run_dir))),
        section("Probes", join(probes(run_dir))),
        section("Training", key_figures(run)),
        section(
            "Curves", join([curves(run_dir), tag("p", _RANKS, class_="faint") if ranks else ""])
        ),
        section("Reconstructions", join(reconstructions(run_dir))),
        tag("p", f"mimsuite {mimsuite.__version__}", class_="faint"),
    )


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
            "told by fine-tuning beside training from scratch at equal total compute, which was "
            "not measured:"
        )
        yield tag("p", text, class_="faint")
        yield preformatted(_commands(run)[-1])


def _commands(run: Path) -> list[str]:
    from mimsuite.report.run_facts import read_yaml

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
        yield picture(chart, caption, dark=draw_gains(gains, dark=True))
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
