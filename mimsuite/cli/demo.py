"""`mimsuite demo`: pretrain on embedded images and measure what was learnt."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def demo(
    out: Annotated[
        Path,
        typer.Option("--out", metavar="DIR", help="Run directory; an earlier demo is removed."),
    ] = Path("runs/demo"),
    smoke: Annotated[bool, typer.Option("--smoke", help="Tiny sizes: does it run at all?")] = False,
) -> None:
    """Pretrain a small MAE on embedded images, draw, probe and fine-tune: minutes on a CPU.

    Each command is shown before it runs; how long all of them take is measured first.

    Example: mimsuite demo
    """
    from mimsuite.console import say
    from mimsuite.demo.sequence import run
    from mimsuite.text import duration

    summary = run(out, smoke)
    took, expected = (duration(summary[key]) for key in ("total_seconds", "estimated_seconds"))
    say(f"took {took}, {expected} was estimated; test samples were scored once")
    say("intervals cover the choice of test samples only, not of the seed")
    say(f"{out / 'report.html'} shows the run, {out / 'summary.json'} has all figures")
