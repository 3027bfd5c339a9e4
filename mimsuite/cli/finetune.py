"""`mimsuite finetune`: train all weights on labels."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated

import typer

from mimsuite.cli import options
from mimsuite.cli.model_io import compose_for, finish, folder_for, on_cuda
from mimsuite.errors import UserError


def finetune(
    ctx: typer.Context,
    model: options.ModelArgument,
    overrides: options.OverridesArgument = None,
    data: options.DataOption = None,
    recipe: options.TuningOption = None,
    baselines: options.BaselinesOption = False,
    equal_compute: Annotated[
        bool,
        typer.Option("--equal-compute", help="Also train from scratch at equal total compute."),
    ] = False,
    rates: Annotated[
        str | None,
        typer.Option(
            metavar="F,F,...|FILE",
            help="Factors of the learning rate, chosen on held-out training samples; or an earlier "
            "finetune.json, to reuse its choice.",
        ),
    ] = None,
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
    """Train all weights on labels, starting from a pretrained encoder.

    With --baselines, the same model is also trained from scratch for the same number of steps; with
    --equal-compute, for the FLOPs of pretraining and fine-tuning together.

    Example: mimsuite finetune runs/first --data ./photos --baselines --rates 0.3,1,3
    """
    if procs or gpus:
        own = [] if out else ["--out", str(folder_for(model, "finetune", resume))]
        return options.start_processes(ctx, procs, gpus, [*own, *on_cuda(gpus, device)])
    from mimsuite.train.preempt import StopFlag

    stop = StopFlag().install()  # before torch is imported
    from mimsuite import evaluate

    composed = compose_for(
        model, recipe, "finetune", data, overrides, seed=seed, device=device, smoke=smoke
    )
    folder = out or folder_for(model, "finetune", resume)
    with options.resumable(ctx, folder):
        result = evaluate.finetune(
            model,
            composed,
            folder,
            baselines=baselines,
            compute=equal_compute,
            rates=_rates(rates),
            resume=resume,
            stop=stop,
        )
    finish("finetune", model, result, None, as_json, folder)
    return 0


def _rates(text: str | None) -> list[float] | dict[str, float]:
    """``0.3,1,3`` -> [0.3, 1, 3]; the path of a result -> the rates that it chose."""
    if text and text.endswith(".json"):
        return _chosen_rates(Path(text))
    try:
        factors = [float(word) for word in text.split(",")] if text else []
    except ValueError:
        factors = [0.0]
    if not all(0 < factor < math.inf for factor in factors):
        raise UserError(f"--rates {text}: give factors above 0, as in 0.3,1,3")
    return factors


def _chosen_rates(path: Path) -> dict[str, float]:
    import json

    try:
        chosen = json.loads(path.read_text())["chosen"]
        return {name: float(choice["learning_rate"]) for name, choice in chosen.items()}
    except OSError as error:
        raise UserError(f"--rates {path}: cannot be read: {error.strerror}") from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise UserError(
            f"--rates {path}: not the result of a finetune that chose its rates"
        ) from None
