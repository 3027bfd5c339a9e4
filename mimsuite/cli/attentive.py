"""`mimsuite attentive-probe`: a trained attention query on a frozen encoder's tokens."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mimsuite.cli import options
from mimsuite.cli.model_io import compose_for, finish, folder_for, on_cuda


def attentive_probe(
    ctx: typer.Context,
    model: options.ModelArgument,
    overrides: options.OverridesArgument = None,
    data: options.DataOption = None,
    recipe: options.TuningOption = None,
    baselines: options.BaselinesOption = False,
    seed: options.SeedOption = None,
    device: options.DeviceOption = "auto",
    resume: options.ResumeOption = "never",
    procs: options.ProcsOption = None,
    gpus: options.GpusOption = None,
    smoke: options.SmokeOption = False,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="Folder for the new runs.")
    ] = None,
    as_json: options.JsonOption = False,
) -> int:
    """Train one attention query and a linear classifier on a frozen encoder's tokens.

    The recipe's model.pooler selects the form: CAE's, CAPI's or V-JEPA's.

    Without --recipe it uses the recipe that the run's recipe names, or image/tiny-attentive. With
    --baselines it also probes an encoder with fresh weights. Test features are standardised by
    statistics of the training set; CAE's published figures use those of each test batch.

    Example: mimsuite attentive-probe runs/first --data ./photos --baselines
    """
    if procs or gpus:
        own = [] if out else ["--out", str(folder_for(model, "attentive_probe", resume))]
        return options.start_processes(ctx, procs, gpus, [*own, *on_cuda(gpus, device)])
    from mimsuite.train.preempt import StopFlag

    stop = StopFlag().install()  # before torch is imported
    from mimsuite import evaluate

    composed = compose_for(
        model, recipe, "attentive-probe", data, overrides, seed=seed, device=device, smoke=smoke
    )
    folder = out or folder_for(model, "attentive_probe", resume)
    with options.resumable(ctx, folder):
        result = evaluate.trained_probe(
            model, composed, folder, baselines=baselines, resume=resume, stop=stop
        )
    finish("attentive_probe", model, result, None, as_json, folder)
    return 0
