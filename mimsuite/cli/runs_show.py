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
            say(f"no longer followed: {run} is still running")
            raise


def compare(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Run directories.")],
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="FILE", help="Page (.html), or picture of curves (.png)."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Compare runs: keys that differ, curves, best checkpoints and probes.

    Example: mimsuite runs compare runs/first runs/second --out both.html
    """
    from mimsuite.cli.output import print_json, print_table
    from mimsuite.report.compare import differing, paired, read_runs, text_curves
    from mimsuite.report.compare_page import compared, paired_line
    from mimsuite.report.files import jsonable

    if len(runs) < 2:
        raise UserError(f"only {runs[0]} was named: name two runs or more")
    if out is not None and out.suffix not in (".html", ".png"):
        raise UserError(f"--out {out}: the name must end in .html or .png")
    found = read_runs(runs)
    differences, pairs = differing(found), paired(found)
    if out is not None:
        _write(found, out)
    if as_json:
        print_json(
            jsonable(
                {"runs": [run.as_dict() for run in found], "differ": differences, "paired": pairs}
            )
        )
        return
    print_table(["", *(run.name for run in found)], compared(found, differences))
    for pair in pairs:
        print(paired_line(pair))
    _print(text_curves(found))


def _facts(run: RunResult) -> list[tuple[str, str]]:
    """Labelled lines of one run."""
    from mimsuite.console import shown_value
    from mimsuite.report.compare_page import reached
    from mimsuite.report.reference import beside_reference

    lines = [(label, text) for label, text in reached(run) if text and label not in run.probes]
    if run.probes:
        probes = (f"{name} {100 * value:.1f} %" for name, value in run.probes.items())
        lines.append(("probes", ", ".join(probes)))
    changed = [f"{key}={shown_value(value)}" for key, value in run.facts.changed.items()]
    recipe = str(run.facts.key("recipe.title") or run.facts.key("method.name") or "")
    if said := beside_reference(run.facts):
        lines.append(("beside", said))
    return [("recipe", recipe), ("changed", " ".join(changed) or "nothing"), *lines]


def _write(runs: list[RunResult], out: Path) -> None:
    from mimsuite.console import say
    from mimsuite.files import write_atomic
    from mimsuite.report.compare import draw_comparison
    from mimsuite.report.compare_page import comparison_page

    drawn = draw_comparison(runs)
    if drawn is None:
        raise UserError(f"nothing was logged in {', '.join(run.name for run in runs)}")
    try:
        write_atomic(out, comparison_page(runs, drawn) if out.suffix == ".html" else drawn)
    except OSError as error:
        raise UserError(f"cannot write {out}: {error.strerror or error}") from None
    say(f"{'page' if out.suffix == '.html' else 'curves'}: {out}")


def _print(lines: list[str]) -> None:
    from mimsuite.console import say

    for line in lines:
        say(line)
