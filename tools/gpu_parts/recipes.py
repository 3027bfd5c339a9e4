"""One step, its waits, the pictures and an encoding of every recipe at smoke size."""

from __future__ import annotations

from contextlib import suppress

import torch

from gpu_parts.stage import Stage
from gpu_parts.waits import waits
from mimsuite import config
from mimsuite.config import Resolved
from mimsuite.report.training_pictures import draw_panels

NAME = "recipes"
TASKS = ("pretrain", "finetune", "linear-probe")
ROWS = 4


def run(stage: Stage) -> None:
    for name in stage.findings.missing(names()):
        with stage.findings.trying(name):
            check(stage, name)


def names() -> list[str]:
    """Every recipe that trains a method."""
    return [name for name in config.recipe_names() if _task(config.load(name)) in TASKS]


def check(stage: Stage, name: str) -> None:
    step = stage.stepper(name, keys_of(name), batch=ROWS, smoke=True)
    step()  # makes the optimizer's state
    places = waits(step, stage.device)
    finite = bool(torch.isfinite(step().loss))
    with torch.no_grad():
        panels = draw_panels(step.method, step.batch.rows(0, 2), 0)
        step.method.eval()
        with suppress(NotImplementedError):  # not every method has features of a whole sample
            step.method.encode(step.batch)
    holds = finite if stage.dry else finite and not places
    stage.findings.add(name, holds, waits=sorted(set(places)), panels=len(panels))


def keys_of(name: str) -> list[str]:
    """Keys that a recipe leaves to its data."""
    target = config.load(name).recipe.target
    return ["target.classes=10"] if getattr(target, "classes", 1) is None else []


def _task(resolved: Resolved) -> str:
    return resolved.recipe.recipe.task
