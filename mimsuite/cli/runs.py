"""`mimsuite runs`: state and results of runs. Does not load torch."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mimsuite.cli import runs_show
from mimsuite.cli.options import JsonOption
from mimsuite.errors import UserError

if TYPE_CHECKING:
    from mimsuite.report.runs import RunSummary

app = typer.Typer(no_args_is_help=True, help="State and results of runs.")


@app.callback()
def _group() -> None:
    """State and results of runs."""


@app.command("list")
def list_runs(
    folders: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[DIR ...]", help="Default: runs.", show_default=False),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """List the runs below some folders: status, progress and next command.

    Status: DONE, PREEMPTED, FAILED; running; quiet = not ended, but nothing written
    for half an hour; waiting = a job was submitted, training has not begun.
    A job is gone when SLURM no longer knows it.

    Example: mimsuite runs list runs
    """
    from mimsuite.cli.output import print_json, print_list, say
    from mimsuite.cluster.slurm import GONE, job_states
    from mimsuite.report.runs import find_runs, summarise

    for folder in folders or []:
        if not folder.is_dir():
            raise UserError(f"no folder {folder}")
    where = folders or [Path("runs")]
    found = [summarise(run) for run in find_runs(where)]
    states = job_states() if any(run.job for run in found) else None
    jobs = [
        None if run.job is None or states is None else states.get(run.job, GONE) for run in found
    ]
    if as_json:
        print_json([_entry(run, state) for run, state in zip(found, jobs, strict=True)])
        return
    if not found:
        say(f"no runs in {' '.join(map(str, where))}")
        return
    rows = [_row(run, state) for run, state in zip(found, jobs, strict=True)]
    columns = ["run", "status", "step", "loss", "age", "job", "recipe", "next"]
    # Next commands are too wide for a column, and they name their run anyway.
    apart = sys.stdout.isatty()
    print_list(columns[:-1] if apart else columns, [row[:-1] if apart else row for row in rows])
    for run in found if apart else ():
        if run.next:
            print(f"next  {run.next}")


def _entry(run: RunSummary, state: str | None) -> dict[str, object]:
    loss = run.loss if run.loss is not None and math.isfinite(run.loss) else None
    entry = {**vars(run), "path": str(run.path), "loss": loss, "age": round(run.age)}
    return {**entry, "job_state": state}


def _row(run: RunSummary, state: str | None) -> list[str]:
    from mimsuite.text import duration, number

    step = "" if run.step is None else str(run.step)
    if step and run.total_steps is not None:
        step += f"/{run.total_steps}"
    return [
        str(run.path),
        run.status,
        step,
        "" if run.loss is None else number(run.loss),
        duration(run.age),
        f"{run.job} {state or ''}".strip() if run.job else "",
        run.recipe,
        run.next,
    ]


app.command("show")(runs_show.show)
app.command("compare")(runs_show.compare)
