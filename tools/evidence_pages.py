"""Pages of evidence: tables with intervals from the rows that exist, and what is missing.

Figures are balanced accuracies in % on the test split, or the main figure of another task: the mean
over seeds with the lowest and the highest, and the gain over each baseline with its 95 % interval,
paired by seed and sample. Those of `evaluate` are in their own units and have no baselines. Where a
set is cut into folds, the folds of a seed make one figure of the whole set. Verdicts follow from
the intervals of a table's first measure alone.
"""

from __future__ import annotations

import fnmatch
import json
import re
from collections.abc import Iterable
from typing import Any

import torch
from evidence_rows import PLAN, TOP, Encoder, Row, Table, rows_of

from mimsuite.config import recipe_names
from mimsuite.config.learning import HELPS, MISSING, NOT_YET, RAW_WINS, forget, learning
from mimsuite.evaluate.bootstrap import Interval, balancing_weights, paired_interval
from mimsuite.evaluate.dense.result import gains_over_seeds
from mimsuite.evaluate.scoring.scorer import Figure
from mimsuite.evaluate.variants import RIVALS, title_of

PAGES = PLAN.parent
LEARNING = TOP / "recipes/learning.json"  # read by `recipes list`
README = TOP / "README.md"


class Seeds:
    """One measure of one encoder over the seeds that are complete: balanced accuracy.

    Attributes:
        variants: the pretrained encoder and its baselines.
    """

    def __init__(self, parts: list[dict[str, Any]]) -> None:
        self.parts, self.count = parts, len(parts)
        self.variants = list(parts[0]["right"])
        self._weights = balancing_weights(torch.tensor(parts[0]["labels"]))

    def figures(self, variant: str) -> list[float]:
        """In %, a seed each."""
        found: list[float] = (100 * (self._right(variant).double() @ self._weights)).tolist()
        return found

    def gain(self, baseline: str) -> Interval:
        """Of the pretrained over a baseline."""
        ours, theirs = self._right("pretrained"), self._right(baseline)
        return paired_interval(ours, theirs, weights=self._weights)

    def gain_over(self, other: Seeds) -> Interval:
        """Of the pretrained over another encoder's."""
        ours, theirs = self._right("pretrained"), other._right("pretrained")
        return paired_interval(ours, theirs, weights=self._weights)

    def _right(self, variant: str) -> torch.Tensor:
        """(seeds, samples) whether each was right."""
        return torch.tensor([[int(c) for c in part["right"][variant]] for part in self.parts])


class DenseSeeds(Seeds):
    """The same of a dense probe: its main figure, mean IoU or delta1."""

    def __init__(self, parts: list[dict[str, Any]]) -> None:
        self.parts, self.count = parts, len(parts)
        self.variants = list(parts[0]["per_image"])

    def figures(self, variant: str) -> list[float]:
        return [100 * part[part["main"]][variant] for part in self.parts]

    def gain(self, baseline: str) -> Interval:
        return gains_over_seeds(self.parts, baseline)[self.parts[0]["main"]]


class FigureSeeds(Seeds):
    """The same of any other trained task: its main figure, with the widest interval of its seeds,
    since samples of different seeds cannot be drawn together."""

    def __init__(self, parts: list[dict[str, Any]]) -> None:
        self.parts, self.count = parts, len(parts)
        self.main = parts[0]["main"]
        self.variants = [name for name, value in parts[0][self.main].items() if value is not None]

    def figures(self, variant: str) -> list[float]:
        return [100 * part[self.main][variant] for part in self.parts]

    def gain(self, baseline: str) -> Interval:
        found = [Interval(**part["intervals"][baseline][self.main]) for part in self.parts]
        return Interval(
            difference=sum(one.difference for one in found) / self.count,
            low=min(one.low for one in found),
            high=max(one.high for one in found),
            confidence=found[0].confidence,
            seeds=self.count,
            samples=found[0].samples,
        )


class ScoreSeeds(Seeds):
    """Figures of models as they are, by `evaluate`, in their own units and without baselines."""

    def __init__(self, parts: list[dict[str, Any]]) -> None:
        self.parts, self.count, self.variants = parts, len(parts), ["pretrained"]
        self.described = [Figure(**figure) for figure in parts[0]["figures"]]

    def values(self, figure: Figure) -> list[float]:
        """Of each seed, in the figure's unit."""
        return [part[figure.name] * (100 if figure.unit == "%" else 1) for part in self.parts]

    def figures(self, variant: str) -> list[float]:
        return self.values(self.main)

    @property
    def main(self) -> Figure:
        return next(one for one in self.described if one.name == self.parts[0]["main"])

    def gain_over(self, other: Seeds) -> Interval:
        """The mean over seeds with the lowest and highest; in the figure's unit."""
        both = zip(self.figures(""), other.figures(""), strict=False)
        gains = [ours - theirs for ours, theirs in both]
        return Interval(
            difference=sum(gains) / len(gains),
            low=min(gains),
            high=max(gains),
            confidence=1.0,
            seeds=len(gains),
            samples=self.parts[0]["n_test"],
        )


def write_pages(plan: Iterable[Table]) -> None:
    """A page for each table, the list of them, and what `recipes list` and the README show."""
    plan = list(plan)
    verdicts: dict[str, Any] = {"learning": {}, "ablations": {}}
    for table in plan:
        (PAGES / f"{table.name}.md").write_text(page_of(table), encoding="utf-8")
        for encoder in table.encoders:
            if not encoder.keys and table.judged:
                found = verdicts["learning"].setdefault(encoder.recipe, {})
                found[table.name] = verdict_of(table, encoder)
        for ours, theirs in table.pairs if table.judged else ():
            method = next(one.method for one in table.encoders if one.name == ours)
            verdicts["ablations"].setdefault(method, []).append(pair_verdict(table, ours, theirs))
    (PAGES / "index.md").write_text(index_of(plan), encoding="utf-8")
    LEARNING.write_text(json.dumps(verdicts, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    forget()
    README.write_text(with_learning(README.read_text(encoding="utf-8")), encoding="utf-8")


def with_learning(page: str) -> str:
    """A page whose table of methods has the verdicts of each row's recipes under *learning*."""
    lines = page.splitlines(keepends=True)
    head = next(n for n, line in enumerate(lines) if line.startswith("| method |"))
    columns = [cell.strip() for cell in lines[head].split("|")]
    recipe_at, learning_at = columns.index("recipe"), columns.index("learning")
    for number in range(head + 2, len(lines)):
        cells = lines[number].split("|")
        if len(cells) != len(columns):  # behind the table
            break
        patterns = re.findall(r"`([^`]+)`", cells[recipe_at])
        recipes = [n for n in recipe_names() if any(fnmatch.fnmatch(n, p) for p in patterns)]
        cells[learning_at] = f" {learning(*recipes) or '-'} "
        lines[number] = "|".join(cells)
    return "".join(lines)


def index_of(plan: list[Table]) -> str:
    """The list of tables."""
    lines = ["# Evidence of learning", "", __doc__.partition("\n\n")[2].strip(), ""]
    lines += ["Made row by row in the background:", "", "```", "make evidence HOURS=2"]
    lines += ["make evidence-pages", "```", ""]
    cells = []
    for table in plan:
        rows = list(rows_of(table))
        said = ((one.name, said_of(table, one)) for one in table.encoders)
        verdicts = ", ".join(f"{name}: {text}" for name, text in said if text != MISSING)
        done = f"{sum(row.done for row in rows)} of {len(rows)}"
        cells.append((f"[{table.title}]({table.name}.md)", done, verdicts or MISSING))
    return "\n".join([*lines, *markdown(("table", "rows", "verdicts"), cells)])


def page_of(table: Table) -> str:
    """One table's page."""
    rows = list(rows_of(table))
    missing = [row for row in rows if not row.done]
    lines = [f"# {table.title}", "", table.about.strip(), "", "| encoder | recipe | changed keys |"]
    lines += ["| --- | --- | --- |"]
    for one in table.encoders:
        lines.append(f"| {one.name} | {one.recipe} | {' '.join(one.keys) or '-'} |")
    first = table.encoders[0]
    show = " ".join(("mimsuite recipes show", first.recipe, "--resolved", *first.keys))
    lines += ["", "```", show, "```"]
    folds = f", {table.folds} folds" if table.folds else ""
    lines += [
        "",
        f"Seeds {', '.join(map(str, table.seeds))}{folds}. {len(rows) - len(missing)} of ",
    ]
    lines[-1] += f"{len(rows)} rows are made."
    for need in table.missing_needs():
        lines.append(f"Rows need {need}.")
    lines.append("")
    for measure in table.measures:
        lines += section_of(table, measure)
    if missing:
        lines += ["## Rows that are missing", ""]
        lines += [f"- `mimsuite {' '.join(row.command())}`" for row in missing[:12]]
        lines += [f"- and {len(missing) - 12} more"] if len(missing) > 12 else []
        lines.append("")
    return "\n".join(lines)


def section_of(table: Table, measure: str) -> list[str]:
    """A measure's table; nothing where no seed is complete."""
    found = {one.name: seeds_of(table, one, measure) for one in table.encoders}
    known = {name: seeds for name, seeds in found.items() if seeds is not None}
    if not known:
        return []
    if all(isinstance(seeds, ScoreSeeds) for seeds in known.values()):
        return scores_of(table, measure, known)
    shown = [b for b in RIVALS if any(b in seeds.variants for seeds in known.values())]
    cells = [
        (
            name,
            str(seeds.count),
            spread(seeds.figures("pretrained")),
            *(versus(seeds, b) for b in shown),
        )
        for name, seeds in known.items()
    ]
    columns = (f"{title_of(baseline)}: its, gain over it" for baseline in shown)
    head = ("encoder", "seeds", "pretrained", *columns)
    lines = [f"## `{measure}`", "", *markdown(head, cells)]
    pairs = [(a, b) for a, b in table.pairs if a in known and b in known]
    if pairs:
        gains = [(a, b, text_of(known[a].gain_over(known[b]))) for a, b in pairs]
        lines += [*markdown(("encoder", "against", "gain"), gains)]
    return lines


def scores_of(table: Table, measure: str, known: dict[str, Any]) -> list[str]:
    """A measure's table of figures in their own units."""
    described: dict[str, Figure] = {}
    for seeds in known.values():
        described |= {figure.name: figure for figure in seeds.described}
    columns = (f"{figure.title}{_better(figure)}" for figure in described.values())
    cells = [
        (
            name,
            str(seeds.count),
            *(
                spread(seeds.values(figure), figure) if figure in seeds.described else ""
                for figure in described.values()
            ),
        )
        for name, seeds in known.items()
    ]
    lines = [f"## `{measure}`", "", *markdown(("encoder", "seeds", *columns), cells)]
    pairs = [(a, b) for a, b in table.pairs if a in known and b in known]
    if pairs:
        main = known[pairs[0][0]].main
        gains = [(a, b, _range(known[a].gain_over(known[b]), main)) for a, b in pairs]
        gain = f"{main.title}: gain, lowest and highest of the seeds"
        lines += markdown(("encoder", "against", gain), gains)
    return lines


def _better(figure: Figure) -> str:
    unit = f" in {figure.unit}" if figure.unit else ""
    return f"{unit} ({'lower' if figure.lower else 'higher'} is better)"


def _range(gain: Interval, figure: Figure) -> str:
    ends = f"{gain.low:+.1f}, {gain.high:+.1f}"
    return f"{gain.difference:+.1f} [{ends}] {figure.unit}".strip()


def said_of(table: Table, encoder: Encoder) -> str:
    """An encoder's verdict, or its main figure where none is judged."""
    if table.judged:
        return verdict_of(table, encoder)
    seeds = seeds_of(table, encoder, table.verdict)
    if not isinstance(seeds, ScoreSeeds):
        return MISSING
    return f"{spread(seeds.figures(''))} {seeds.main.unit}".strip()


def versus(seeds: Seeds, baseline: str) -> str:
    """The baseline's figure, and the gain over it."""
    if baseline not in seeds.variants:
        return ""
    return f"{spread(seeds.figures(baseline))}, {text_of(seeds.gain(baseline))}"


def spread(figures: list[float], figure: Figure | None = None) -> str:
    """Mean (lowest to highest); three places where a figure has no unit."""
    places = 3 if figure is not None and not figure.unit else 1
    mean, low, high = (
        f"{value:.{places}f}" for value in (sum(figures) / len(figures), min(figures), max(figures))
    )
    return mean if len(figures) == 1 else f"{mean} ({low} to {high})"


def seeds_of(table: Table, encoder: Encoder, measure: str) -> Seeds | None:
    """The results of all complete seeds; None: there is none."""
    parts = [one for seed in table.seeds if (one := whole(table, encoder, seed, measure))]
    if not parts:
        return None
    if "per_image" in parts[0]:
        return DenseSeeds(parts)
    if "right" in parts[0]:
        return Seeds(parts)
    scored = not isinstance(parts[0][parts[0]["main"]], dict)
    return ScoreSeeds(parts) if scored else FigureSeeds(parts)


def whole(table: Table, encoder: Encoder, seed: int, measure: str) -> dict[str, Any] | None:
    """One seed's answers; folds one after the other. None: some are missing."""
    folds = [None] if table.folds is None else list(range(table.folds))
    rows = [Row(table, encoder, seed, fold, measure) for fold in folds]
    if not all(row.done for row in rows):
        return None
    parts = [row.read() for row in rows]
    if len(parts) == 1:
        return parts[0]
    return {
        "labels": [label for part in parts for label in part["labels"]],
        "right": {
            variant: "".join(part["right"][variant] for part in parts)
            for variant in parts[0]["right"]
        },
    }


def verdict_of(table: Table, encoder: Encoder) -> str:
    """Of an encoder, by the table's deciding measure."""
    seeds = seeds_of(table, encoder, table.verdict)
    if seeds is None or seeds.count < len(table.seeds):
        return MISSING
    gains = {name: seeds.gain(name) for name in RIVALS if name in seeds.variants}
    if (raw := gains.pop("raw_input", None)) is not None and raw.high < 0:
        return RAW_WINS
    return HELPS if gains and all(gain.low > 0 for gain in gains.values()) else NOT_YET


def pair_verdict(table: Table, ours: str, theirs: str) -> str:
    """Whether one encoder of an ablation beats the other."""
    one, other = (
        seeds_of(table, next(e for e in table.encoders if e.name == name), table.verdict)
        for name in (ours, theirs)
    )
    if one is None or other is None or min(one.count, other.count) < len(table.seeds):
        return MISSING
    return HELPS if one.gain_over(other).low > 0 else NOT_YET


def text_of(interval: Interval) -> str:
    """``+5.1 [+0.2, +9.8]``, in points."""
    ends = f"{100 * interval.low:+.1f}, {100 * interval.high:+.1f}"
    return f"{100 * interval.difference:+.1f} [{ends}]"


def markdown(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> list[str]:
    """A table."""
    lines = [head, tuple("---" for _ in head), *rows]
    return [f"| {' | '.join(line)} |" for line in lines] + [""]
