"""What `--dry-run` prints: what a recipe costs, before anything is trained."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from mimsuite.report.console import batch_line, epochs_line, lr_line, rows, say, warn
from mimsuite.report.text import count, duration, memory

if TYPE_CHECKING:
    from mimsuite.config import Resolved


class Costs(Protocol):
    """What was counted; FLOPs are of one sample, forward and backward."""

    @property
    def parameters(self) -> int: ...

    @property
    def trained(self) -> int: ...

    @property
    def flops(self) -> int: ...

    def memory_bytes(self, micro_batch: int) -> int:
        """Peak memory with so many samples at once."""


def dry_run_table(
    resolved: Resolved,
    costs: Costs,
    micro_batch: int,
    samples: int | None,
    seconds_per_sample: float | None,
    device: str,
) -> None:
    """Print parameters, compute, memory, steps and time.

    Args:
        micro_batch: samples on the device at once.
        samples: size of the data; ``None`` = not known.
        seconds_per_sample: of a step of one sample; ``None`` where even one does not fit.
    """
    recipe = resolved.recipe
    accumulation = max(1, recipe.train.global_batch // micro_batch)
    lines = [
        ("model", f"{count(costs.parameters)} parameters, {count(costs.trained)} trained"),
        ("compute", f"{costs.flops / 1e9:.3g} GFLOP a sample, forward and backward"),
        ("batch", batch_line(recipe.train.global_batch, 1, accumulation)),
        ("memory", f"about {_megabytes(costs, micro_batch)} at {micro_batch} samples, fp32"),
        ("lr", lr_line(recipe)),
    ]
    epochs = recipe.schedule.epochs
    if samples is None:
        lines.append(("steps", f"unknown: no data ({epochs_line(recipe)})"))
    else:
        steps = round(epochs * (samples // recipe.train.global_batch))
        lines.append(("steps", f"{steps} ({epochs_line(recipe)} of {samples} samples)"))
    if seconds_per_sample is not None:
        lines.append(("speed", _speed(seconds_per_sample, samples, epochs, device)))
    say(f"dry run of {resolved.name}: nothing is trained", "bold cyan")
    rows(lines)
    if seconds_per_sample is None:
        warn(f"not even one sample fits into the free memory of {device}: no step was tried")


def _megabytes(costs: Costs, micro_batch: int) -> str:
    return memory(costs.memory_bytes(micro_batch) / 1e6)


def _speed(seconds: float, samples: int | None, epochs: float, device: str) -> str:
    text = f"{seconds * 1000:.0f} ms a sample on {device}, one at a time"
    if samples is None:
        return text
    return f"{text}; at most {duration(seconds * samples * epochs)} in all"
