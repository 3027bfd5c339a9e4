"""What a run says of itself: the summary at its start, the next commands at its end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mimsuite.console import LABEL, rows, say, shown_value
from mimsuite.report.commands import next_steps
from mimsuite.text import count, number, without_credentials

if TYPE_CHECKING:
    from mimsuite.config import Resolved


def banner(
    resolved: Resolved,
    *,
    run_dir: str | Path,
    accumulation: int,
    devices: int,
    steps: int,
    start: int,
    parameters: int,
    trained: int,
    samples: int,
    unused: Sequence[str] = (),
    samples_dropped: int = 0,
    samples_repeated: int = 0,
    device: str = "",
    precision: str = "",
    notes: Sequence[str] = (),
    log: Callable[[str], None] | None = None,
) -> None:
    """Say what is about to run.

    Args:
        run_dir: where its results go.
        accumulation: micro-batches of each device in an optimizer step.
        devices: how many there are; ``device`` is the name of this process's one.
        steps: optimizer steps in all; ``start`` of them are done (> 0 on resume).
        parameters: of the method, ``trained`` of them by gradients.
        samples: in the training set.
        unused: what the source holds and training does not use, a line each.
        samples_dropped: samples that an epoch leaves out, since they fill no whole batch.
        samples_repeated: samples that an epoch reads twice, to fill its last batch.
        notes: further lines, e.g. which weights training started from.
        log: takes the same lines, without credentials; the run's log.
    """
    recipe = resolved.recipe
    title = f"{recipe.recipe.task} {resolved.name}"
    about = f"{count(parameters)} parameters"
    about += f", {count(trained)} trained" if trained != parameters else ""
    where = " on ".join(part for part in (precision, device) if part)
    tail = f", {samples_dropped} samples of each left out" if samples_dropped else ""
    tail += f", {samples_repeated} samples of each repeated" if samples_repeated else ""
    done = f", resumed after {start}" if start else ""
    lines = [
        *_changes(resolved),
        ("data", f"{recipe.data.shown}: {samples:,} samples"),
        *(("not used", line) for line in unused),
        ("batch", batch_line(recipe.train.global_batch, devices, accumulation)),
        ("lr", lr_line(recipe)),
        ("steps", f"{steps} ({epochs_line(recipe)}{tail}){done}"),
        ("model", f"{about}; {where}" if where else about),
        ("run", str(run_dir)),
        *(("note", note) for note in notes),
    ]
    say(title, "bold cyan")
    rows(lines)
    if log is not None:
        log(title)
        for label, text in lines:
            log(without_credentials(f"{label.ljust(LABEL)}{text}"))


def batch_line(global_batch: int, devices: int, accumulation: int) -> str:
    """``4096 = 64 per device x 8 devices x 8 accumulation``."""
    per_device = global_batch // (devices * accumulation)
    plural = "device" if devices == 1 else "devices"
    factors = f"{per_device} per device x {devices} {plural} x {accumulation} accumulation"
    return f"{global_batch} = {factors}"


def lr_line(recipe: Any) -> str:
    """The peak learning rate, and how it came about where it was scaled."""
    if recipe.optim.lr_per_256 is None:
        return number(recipe.lr)
    scaled = f"{number(recipe.optim.lr_per_256)} x {recipe.train.global_batch} / 256"
    factor = "" if recipe.rate_factor == 1 else f" x {number(recipe.rate_factor)}"
    return f"{number(recipe.lr)} = {scaled}{factor}"


def epochs_line(recipe: Any) -> str:
    """``1 epoch``, ``400 epochs``."""
    epochs = recipe.schedule.epochs
    return f"{number(epochs)} epoch" + ("" if epochs == 1 else "s")


def next_commands(run_dir: str | Path) -> None:
    """Say what can be done with a run now, by how it ended."""
    steps = next_steps(Path(run_dir))
    if steps:
        say("next", "bold cyan")
        rows(steps)


def _changes(resolved: Resolved) -> list[tuple[str, str]]:
    if not resolved.changed:
        return [("changed", "nothing")]
    settings = [f"{key}={shown_value(value)}" for key, value in resolved.changed.items()]
    width = min(48, max(map(len, settings)))
    origins = [resolved.origins.get(key, "") for key in resolved.changed]
    lines = [f"{s.ljust(width)}  ({o})" for s, o in zip(settings, origins, strict=True)]
    return [("changed" if i == 0 else "", line) for i, line in enumerate(lines)]
