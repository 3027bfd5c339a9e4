"""What a recipe costs, before anything is trained: printed by `--dry-run` and by the doctor."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mimsuite.console import rows, say, warn
from mimsuite.report.announcements import batch_line, epochs_line, lr_line
from mimsuite.text import count, duration, memory

if TYPE_CHECKING:
    from mimsuite.config import Resolved
    from mimsuite.train.cost_plan import Plan

_PARTS = {
    "weights": "weights",
    "gradients": "gradients",
    "optimizer": "optimizer",
    "ema": "moving average",
    "casts": "weights cast",
    "activations": "activations",
    "saving": "checkpoint in the making",
}


def plan_table(resolved: Resolved, plan: Plan) -> None:
    """Print parameters, compute, batch, memory by part, rate, steps and hours."""
    recipe, costs, devices = resolved.recipe, plan.costs, plan.devices
    share = plan.per_device * plan.accumulation
    lines = [
        ("model", f"{count(costs.parameters)} parameters, {count(costs.trained)} trained"),
        (
            "compute",
            f"{costs.flops / 1e9:.3g} GFLOP a sample ({costs.forward_flops / 1e9:.3g} forward; "
            f"counted: {costs.counted})",
        ),
        ("batch", batch_line(plan.global_batch, devices.count, plan.accumulation)),
        ("memory", _memory(plan)),
        *(("", line) for line in _parts(plan)),
        ("lr", lr_line(recipe)),
    ]
    if plan.samples is None:
        lines.append(("steps", f"unknown: no data ({epochs_line(recipe)})"))
    else:
        text = f"{plan.steps} ({epochs_line(recipe)} of {plan.samples} samples)"
        lines.append(("steps", text))
    lines.append(("time", _time(plan)))
    say(f"{resolved.name}: what it takes, nothing is trained", "bold cyan")
    rows(lines)
    if plan.fits is False:
        warn(out_of_room(plan))
    elif plan.fits and plan.micro_batch > plan.per_device and plan.accumulation > 1:
        rows([("", f"train.micro_batch={plan.micro_batch} of {share} would fit, too")])


def out_of_room(plan: Plan) -> str:
    """One line: that memory does not suffice, and what to change."""
    need, free = plan.memory.total / 1e6, (plan.devices.memory_bytes or 0) / 1e6
    fault = f"{memory(need)} are needed on {plan.devices.name}, {memory(free)} are free"
    if plan.micro_batch:
        return f"{fault}: set train.micro_batch={plan.micro_batch} (the result stays the same)"
    more = "train.checkpoint_activations=true, or train.parallel=fsdp on more devices"
    return f"{fault}, and not even one sample fits: try {more}"


def speed_line(seconds: float, plan: Plan) -> None:
    """Print what one sample took, one at a time."""
    text = f"{seconds * 1000:.0f} ms a sample on {plan.devices.name}, one at a time"
    if plan.samples is not None:
        text += f"; at most {duration(seconds * plan.samples * plan.epochs)} in all"
    rows([("tried", text)])


def _memory(plan: Plan) -> str:
    devices = plan.devices
    text = f"about {memory(plan.memory.total / 1e6)} at {plan.per_device} samples"
    text += f", {devices.precision} on {devices.name}"
    if devices.memory_bytes is None:
        return text + " (of unknown size: give --memory-gb)"
    return text + f", of {memory(devices.memory_bytes / 1e6)} free"


def _parts(plan: Plan) -> list[str]:
    """The parts of the memory, largest first, a few to a line."""
    parts = plan.memory.as_dict()
    shown = sorted((n for n in _PARTS if parts[n] > 0), key=lambda n: -parts[n])
    texts = [f"{_PARTS[name]} {memory(parts[name] / 1e6)}" for name in shown]
    return [", ".join(texts[first : first + 4]) for first in range(0, len(texts), 4)]


def _time(plan: Plan) -> str:
    if plan.peak_flops is None:
        return f"unknown: the device's peak rate is {plan.peak_origin}"
    rate = f"{plan.utilisation:.0%} of {plan.peak_flops / 1e12:.3g} TFLOP/s ({plan.peak_origin})"
    if plan.hours is None:
        flops = plan.costs.flops * 1e6 * plan.epochs
        hours = flops / (plan.devices.count * plan.peak_flops * plan.utilisation) / 3600
        epochs = f"{plan.epochs:g} epochs of " if plan.epochs != 1 else ""
        return f"{_hours(hours)} for {epochs}each million samples, at {rate}"
    return f"{_hours(plan.hours)} at {rate}"


def _hours(hours: float) -> str:
    return f"{hours:.1f} hours" if hours >= 1 else f"{60 * hours:.1f} minutes"
