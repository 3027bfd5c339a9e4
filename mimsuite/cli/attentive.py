"""`mimsuite attentive-probe`: a learnt query over the tokens of a frozen encoder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mimsuite.cli import probes
from mimsuite.cli.options import (
    DataOption,
    GpusOption,
    JsonOption,
    OverridesArgument,
    ProcsOption,
    SmokeOption,
    resumable,
    start_processes,
)


def attentive_probe(
    ctx: typer.Context,
    model: probes.ModelArgument,
    overrides: OverridesArgument = None,
    data: DataOption = None,
    recipe: probes.TuningOption = None,
    baselines: probes.BaselinesOption = False,
    seed: probes.SeedOption = None,
    device: probes.DeviceOption = "auto",
    resume: probes.ResumeOption = "never",
    procs: ProcsOption = None,
    gpus: GpusOption = None,
    smoke: SmokeOption = False,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="Folder for the new runs.")
    ] = None,
    as_json: JsonOption = False,
) -> int:
    """Train one attention query and a linear classifier on a frozen encoder's tokens (CAE).

    Without --recipe by the recipe that the run's own names, else by image/tiny-attentive. With
    --baselines the same on an encoder with fresh weights. Test features are standardised by
    statistics of the training set; published figures of CAE took those of each test batch.

    Example: mimsuite attentive-probe runs/first --data ./photos --baselines
    """
    if procs or gpus:
        own = [] if out else ["--out", str(probes._folder_for(model, "attentive_probe", resume))]
        return start_processes(ctx, procs, gpus, [*own, *probes._on_cuda(gpus, device)])
    from mimsuite.train.preempt import StopFlag

    stop = StopFlag().install()  # before torch is imported
    from mimsuite import evaluate

    composed = probes._compose(
        model, recipe, "attentive-probe", data, overrides, seed=seed, device=device, smoke=smoke
    )
    folder = out or probes._folder_for(model, "attentive_probe", resume)
    with resumable(ctx, folder):
        result = evaluate.trained_probe(
            model, composed, folder, baselines=baselines, resume=resume, stop=stop
        )
    written = probes._beside(model, "attentive_probe.json") or folder / "attentive_probe.json"
    probes._finish("attentive probe", result, written, as_json)
    return 0
