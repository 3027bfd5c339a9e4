"""`mimsuite linear-probe`, `knn`, `evaluate`: measure what a model learnt."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mimsuite.cli import model_io, options
from mimsuite.cluster import require_single_process
from mimsuite.errors import UserError


def linear_probe(
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
        Path | None,
        typer.Option("--out", help="Result file; with --recipe, a folder for the runs."),
    ] = None,
    as_json: options.JsonOption = False,
) -> int:
    """Train a linear classifier on frozen features.

    Without --recipe, a grid of learning rates, weight decays, layers and poolings is trained at
    once on cached features, and validation chooses. With --recipe NAME, the head is trained by that
    linear-probe recipe, as published.

    Example: mimsuite linear-probe runs/first --data ./photos --baselines
    """
    if procs or gpus:
        folder = model_io.folder_for(model, "linear_probe", resume) if recipe and not out else None
        own = ["--out", str(folder)] if folder else []
        return options.start_processes(ctx, procs, gpus, [*own, *model_io.on_cuda(gpus, device)])
    if recipe is not None:
        from mimsuite.train.preempt import StopFlag

        stop = StopFlag().install()  # before torch is imported
        from mimsuite import evaluate

        composed = model_io.compose_for(
            model, recipe, "linear-probe", data, overrides, seed=seed, device=device, smoke=smoke
        )
        folder = out or model_io.folder_for(model, "linear_probe", resume)
        with options.resumable(ctx, folder):
            result = evaluate.trained_probe(
                model, composed, folder, baselines=baselines, resume=resume, stop=stop
            )
        model_io.finish("linear_probe", model, result, None, as_json, folder)
        return 0
    if resume != "never":
        raise UserError("--resume is for --recipe; without it there is nothing to continue")
    found, _ = model_io.probe_data_of(model, overrides, data, device, baselines, seed)
    if found is not None:
        from mimsuite import evaluate

        model_io.finish("linear_probe", model, evaluate.linear_probe(found), out, as_json)
    return 0


def knn(
    ctx: typer.Context,
    model: options.ModelArgument,
    overrides: options.OverridesArgument = None,
    data: options.DataOption = None,
    baselines: options.BaselinesOption = False,
    seed: options.SeedOption = None,
    device: options.DeviceOption = "auto",
    procs: options.ProcsOption = None,
    gpus: options.GpusOption = None,
    out: options.ResultOption = None,
    as_json: options.JsonOption = False,
) -> int:
    """Classify by the nearest training samples in feature space; nothing is trained.

    Example: mimsuite knn runs/first --data ./photos eval.neighbours=10
    """
    if procs or gpus:
        return options.start_processes(ctx, procs, gpus, model_io.on_cuda(gpus, device))
    found, resolved = model_io.probe_data_of(model, overrides, data, device, baselines, seed)
    if found is not None:
        from mimsuite import evaluate

        result = evaluate.knn(found, resolved.recipe.eval.neighbours)
        model_io.finish("knn", model, result, out, as_json)
    return 0


def evaluate(
    model: options.ModelArgument,
    overrides: options.OverridesArgument = None,
    data: options.DataOption = None,
    device: options.DeviceOption = "auto",
    out: options.ResultOption = None,
    as_json: options.JsonOption = False,
) -> None:
    """Score a fine-tuned model on the test split of a labelled source. Its recipe decides the task:
    classes, parts, boxes or voxel labels.

    Example: mimsuite evaluate runs/first/finetune/pretrained --data ./photos eval.split=val
    """
    from mimsuite.evaluate.scoring.scorer import scorer_of
    from mimsuite.evaluate.show import show_report
    from mimsuite.evaluate.sources import open_said

    require_single_process()
    opened = model_io.open_on_device(model, overrides, data, device)
    source = open_said(opened.resolved, opened.resolved.recipe.eval.split)
    scorer = scorer_of(opened.resolved)
    result = scorer.report(scorer.collect(opened.method, source), source)
    show_report(f"{model} on {source.name}, split '{source.split}'", result)
    model_io.write_result(result, out or model_io.beside(model, "evaluate.json"), as_json)
