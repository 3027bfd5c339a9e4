"""Which checkpoints of a run stay on the disk."""

from __future__ import annotations

import json
import math
from pathlib import Path

from mimsuite.train import checkpoint

FIGURE = "mean_loss"  # in state.json: of the steps since the save before


def prune(
    root: Path, step: int, keep: int, *, best: bool = False, every_steps: int | None = None
) -> None:
    """After a save at ``step``, remove what is not wanted any more.

    What is newer than ``step`` is left alone: it is damaged or was gone back from, and is replaced
    when training comes by. Nothing is removed unless the new checkpoint has all of its files.

    Args:
        keep: so many of the newest stay.
        best: that with the lowest mean training loss since the save before stays too.
        every_steps: those at multiples of it stay too.
    """
    done = [path for path in checkpoint.steps(root) if checkpoint.step_of(path) <= step]
    whole = [path for path in done if checkpoint.damage(path, sizes_only=True) is None]
    if not done or done[0] not in whole:
        return
    kept = set(whole[:keep])
    if best:
        kept.add(min(whole, key=_figure))  # ties: the newest
    if every_steps is not None:
        kept |= {path for path in whole if checkpoint.step_of(path) % every_steps == 0}
    for path in done:
        if path not in kept:
            checkpoint.remove(path)


def _figure(path: Path) -> float:
    """The mean loss; infinite where it is not known."""
    try:
        value = float(json.loads((path / "state.json").read_text())[FIGURE])
    except (OSError, ValueError, KeyError, TypeError):
        return math.inf
    return value if math.isfinite(value) else math.inf
