"""`mimsuite runs show` and `mimsuite runs compare`: one run in detail, several side by side."""

from __future__ import annotations

from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mimsuite.cli.options import JsonOption
from mimsuite.errors import UserError

if TYPE_CHECKING:
    from mimsuite.report.compare import RunResult

# Figures of a row of metrics that the progress line shows.
_FOLLOWED = ("loss", "lr", "grad_norm", "samples_per_second", "data_wait", "memory_mb")

RunArgument = Annotated[Path, typer.Argument(metavar="RUN", help="Run directory.")]


def show(
    run: RunArgument,
    follow: Annotated[
        bool, typer.Option("--follow", help="Show its progress until it ends; Ctrl-C leaves it.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Show a run: status, results, curve and next command.

    Example: mimsuite runs show runs/first

    Example: mimsuite runs show runs/first --follow
    """
    from mimsuite.cli.output import print_json
    from mimsuite.console import rows, say
    from mimsuite.report.commands import next_steps
    from mimsuite.report.compare import read_runs, text_curves
    from mimsuite.report.files import jsonable

    if follow:
        if as_json:
            raise UserError(f"--json with --follow: {run / 'metrics.jsonl'} has the rows as JSON")
        _follow(run)
    (found,) = read_runs([run])
    events = Counter(str(event.get("event")) for event in found.facts.events)
    steps = next_steps(run)
    if as_json:
        more = {"changed": found.facts.changed, "events": events, "next": dict(steps)}
        print_json(jsonable({**found.as_dict(), **more}))
        return
    say(f"{found.path}: {found.status}", "bold cyan")
    rows(_facts(found))
    rows([("events", ", ".join(f"{name} {count}" for name, count in events.items()) or "none")])
    _print(text_curves([found]))
    if steps:
        say("next", "bold cyan")
        rows(steps)


def _follow(run: Path) -> None:
    """Progress of a run of another process, until it ends."""
    from mimsuite.console import say
    from mimsuite.report.follow import follow
    from mimsuite.report.progress import Progress, progress
    from mimsuite.report.runs import summarise

    if not run.is_dir():
        raise UserError(f"no run directory {run}")
    if (now := summarise(run)).status == "waiting":
        if now.job is None:
            raise UserError(f"{run} is no run directory: it has no config.yaml")
        say(f"job {now.job} has not begun")
    line: Progress | None = None
    with ExitStack() as shown:
        try:
            for row in follow(run):
                step = int(row.get("step", 0))
                if line is None:
                    total = summarise(run).total_steps or step
                    line = shown.enter_context(progress(total, step - 1))
                figures: dict[str, Any] = {name: float(row.get(name, 0)) for name in _FOLLOWED}
                line.update(step, **figures)
        except KeyboardInterrupt:
            say(f"no longer followed: {run} goes on")
            raise


def compare(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Run directories.")],
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="Draw the curves, as PNG.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Compare runs: keys that differ, curves, best checkpoints and probes.

    Example: mimsuite runs compare runs/first runs/second --out curves.png
    """
    from mimsuite.cli.output import print_json, print_table
    from mimsuite.report.compare import differing, paired, read_runs, text_curves
    from mimsuite.report.files import jsonable

    if len(runs) < 2:
        raise UserError(f"only {runs[0]} was named: name two runs or more")
    if out is not None and out.suffix.lower() != ".png":
        raise UserError(f"--out {out}: the name must end in .png")
    found = read_runs(runs)
    differences, pairs = differing(found), paired(found)
    if out is not None:
        _draw(found, out)
    if as_json:
        print_json(
            jsonable(
                {"runs": [run.as_dict() for run in found], "differ": differences, "paired": pairs}
            )
        )
        return
    print_table(["", *(run.name for run in found)], _table(found, differences))
    for pair in pairs:
        value, low, high = (100 * pair[key] for key in ("difference", "low", "high"))
        sure = "" if low > 0 or high < 0 else "; not a significant difference"
        print(
            f"{pair['probe']}: {pair['run']} minus {pair['against']} {value:+.1f} points "
            f"[{low:+.1f}, {high:+.1f}], {pair['samples']} paired test samples{sure}"
        )
    _print(text_curves(found))


def _facts(run: RunResult) -> list[tuple[str, str]]:
    """Labelled lines of one run."""
    from mimsuite.console import shown_value

    lines = [(label, text) for label, text in _reached(run) if text and label not in run.probes]
    if run.probes:
        probes = (f"{name} {100 * value:.1f} %" for name, value in run.probes.items())
        lines.append(("probes", ", ".join(probes)))
    changed = [f"{key}={shown_value(value)}" for key, value in run.facts.changed.items()]
    recipe = str(run.facts.key("recipe.title") or run.facts.key("method.name") or "")
    return [("recipe", recipe), ("changed", " ".join(changed) or "nothing"), *lines]


def _reached(run: RunResult) -> list[tuple[str, str]]:
    """(label, text) of each result of a run; the text is empty if there is none."""
    from mimsuite.text import duration, number

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


def _table(runs: list[RunResult], differences: dict[str, list[Any]]) -> list[list[str]]:
    """The results of the runs, then the keys in which they differ."""
    from mimsuite.console import shown_value

    reached = [dict(_reached(run)) for run in runs]
    labels = dict.fromkeys(label for one in reached for label in one)
    table = [["status", *(run.status for run in runs)]]
    table += [[label, *(one.get(label) or "-" for one in reached)] for label in labels]
    table += [
        [key, *("-" if value is None else shown_value(value) for value in values)]
        for key, values in differences.items()
    ]
    return table


def _draw(runs: list[RunResult], out: Path) -> None:
    from mimsuite.console import say
    from mimsuite.files import write_atomic
    from mimsuite.report.compare import draw_comparison

    picture = draw_comparison(runs)
    if picture is None:
        raise UserError(f"nothing was logged in {', '.join(run.name for run in runs)}")
    try:
        write_atomic(out, picture)
    except OSError as error:
        raise UserError(f"cannot write {out}: {error.strerror or error}") from None
    say(f"curves: {out}")


def _print(lines: list[str]) -> None:
    from mimsuite.console import say

    for line in lines:
        say(line)
