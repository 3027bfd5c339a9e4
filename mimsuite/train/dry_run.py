"""`--dry-run`: print the plan of a run, then time a step of one sample if memory allows."""

from __future__ import annotations

import time

from mimsuite.config import Resolved
from mimsuite.config.keys.shared import Recipe
from mimsuite.console import warn
from mimsuite.methods import build
from mimsuite.noise import Noise
from mimsuite.report.dry_run import plan_table, speed_line
from mimsuite.train.cost_plan import make_plan, planned_devices
from mimsuite.train.device import choose_device
from mimsuite.train.random_batches import random_batch, shapes_of
from mimsuite.train.step import run_method


def dry_run(resolved: Resolved) -> None:
    """Print the costs of training on this machine."""
    recipe = resolved.recipe
    plan = make_plan(resolved, planned_devices(recipe, None, None))
    plan_table(resolved, plan)
    if plan.micro_batch == 0:
        warn(f"not even one sample fits on {plan.devices.name}: no step was tried")
        return
    speed_line(_seconds_of_one_sample(recipe), plan)


def _seconds_of_one_sample(recipe: Recipe) -> float:
    """Time of the second of two steps with one sample."""
    device = choose_device(recipe.train.device)
    method = build(recipe).train().to(device)
    batch = random_batch(shapes_of(recipe), 1, device)
    elapsed = 0.0
    for _ in range(2):
        begun = time.perf_counter()
        loss = run_method(method, batch, Noise(recipe.train.seed, 0, batch.index)).loss
        loss.backward()
        loss.item()  # wait for the device
        elapsed = time.perf_counter() - begun
    return elapsed
