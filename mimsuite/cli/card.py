"""`mimsuite card`: a one-page report of whether pretraining helped. Does not load torch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mimsuite.cli.options import JsonOption


def card(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Run directory.")],
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE.html", help="The page; default: card.html in the run."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Write a run's report card from the results in its directory.

    A self-contained page: a verdict (helps, not yet, raw input wins) with its interval, gains over
    every baseline, low-shot curve, probes, dense figures, loss, feature rank and reconstructions.
    The verdict needs probes that were run with --baselines.

    Example: mimsuite card runs/first
    """
    from mimsuite.cli.output import print_json, say
    from mimsuite.report import write_page
    from mimsuite.report.card import write_card
    from mimsuite.report.gains import read_gains, verdict

    path = write_card(run, out)
    if out is None:
        write_page(run)  # which names the card now
    found = verdict(read_gains(run))
    if as_json:
        shown = None if found is None else {**vars(found), "gain": vars(found.gain)}
        print_json({"card": str(path), "verdict": shown})
        return
    if found is None:
        say(f"no verdict: no probe was run with --baselines; {path}")
    else:
        say(f"{found.word}: {found.gain.title} {found.gain.text}; {path}")
