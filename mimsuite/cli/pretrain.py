"""`mimsuite pretrain`: train a method by a recipe."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mimsuite.cli.options import (
    DataOption,
    GpusOption,
    OutOption,
    OverridesArgument,
    ProcsOption,
    RecipeArgument,
    SmokeOption,
    resumable,
    start_processes,
)
from mimsuite.config.suggest import with_article
from mimsuite.errors import UserError


def pretrain(
    ctx: typer.Context,
    recipe: RecipeArgument,
    overrides: OverridesArgument = None,
    data: DataOption = None,
    out: OutOption = None,
    resume: Annotated[str, typer.Option(help="never, auto, or a checkpoint's path.")] = "never",
    init_from: Annotated[
        str | None, typer.Option(help="Start from these weights: run, checkpoint or .pth file.")
    ] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda or mps.")] = None,
    seed: Annotated[int | None, typer.Option(help="Same as train.seed=N.")] = None,
    procs: ProcsOption = None,
    gpus: GpusOption = None,
    smoke: SmokeOption = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Count parameters, memory and steps; train nothing.")
    ] = False,
) -> int:
    """Pretrain a masked model.

    Example: mimsuite pretrain image/mae-tiny-fashion --out runs/first
    """
    if (procs or gpus) and not dry_run:
        own = [] if out else ["--out", str(_default_out(recipe, new=resume == "never"))]
        own += ["--device", "cuda"] if gpus and not device else []
        return start_processes(ctx, procs, gpus, own)
    from mimsuite.train.preempt import StopFlag

    # Before torch is imported, which takes seconds in which a signal would kill the process.
    stop = StopFlag() if dry_run else StopFlag().install()
    from mimsuite import config

    resolved = config.load(recipe, overrides or [], smoke=smoke)
    if resolved.recipe.recipe.task != "pretrain":
        raise UserError(
            f"{resolved.name} is {with_article(resolved.recipe.recipe.task)} recipe: use mimsuite "
            f"{resolved.recipe.recipe.task} RUN --recipe {resolved.name}"
        )
    changes = {"data.source": data, "train.device": device, "train.seed": seed}
    given = {key: value for key, value in changes.items() if value is not None}
    resolved = config.with_overrides(resolved, given)
    if dry_run:
        from mimsuite.data import open_training_set
        from mimsuite.train.dry_run import dry_run as show

        if data is not None:  # --data must exist; the recipe's source need not exist yet
            open_training_set(resolved.recipe)
        show(resolved)
        return 0
    from mimsuite.cluster import find_rank_info

    find_rank_info()  # raises its errors before torch is imported
    from mimsuite.checkpoints import initialise
    from mimsuite.train.run import train

    folder = out or _default_out(resolved.name, new=resume == "never")
    with resumable(ctx, folder):
        train(
            resolved,
            folder,
            resume=resume,
            initialise=(lambda method: initialise(method, init_from)) if init_from else None,
            stop=stop,
        )
    return 0


def _default_out(name: str, *, new: bool) -> Path:
    """runs/<recipe>; for a new run the first free one of it and runs/<recipe>-2, -3 ..."""
    base = Path("runs") / Path(name).stem
    number = 2
    out = base
    while new and out.exists():
        out = base.with_name(f"{base.name}-{number}")
        number += 1
    return out
