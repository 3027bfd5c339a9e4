"""Retention: which checkpoints of a run are kept."""

from __future__ import annotations

import json
import math
from pathlib import Path

from mimsuite.train import checkpoint

FIGURE = "mean_loss"  # key in state.json: mean loss of the steps since the previous save


def prune(
    root: Path, step: int, keep: int, *, best: bool = False, every_steps: int | None = None
) -> None:
    """After a save at ``step``, remove checkpoints that are not to be kept.

    Checkpoints newer than ``step`` are left: they are damaged, or training was rewound before them,
    and later saves replace them. Nothing is removed unless the new checkpoint has all its files.

    Args:
        keep: number of newest checkpoints to keep.
        best: also keep the one with the lowest mean training loss since its previous save.
        every_steps: also keep those at multiples of this number of steps.
    """
    done = [path for path in checkpoint.steps(root) if checkpoint.step_of(path) <= step]
    whole = [path for path in done if checkpoint.damage(path, sizes_only=True) is None]
    if not done or done[0] not in whole:
        return
    kept = set(whole[:keep])
    if best:
        kept.add(min(whole, key=_figure))  # on ties, the newest
    if every_steps is not None:
        kept |= {path for path in whole if checkpoint.step_of(path) % every_steps == 0}
    for path in done:
        if path not in kept:
            checkpoint.remove(path)


def _figure(path: Path) -> float:
    """The checkpoint's mean loss; infinite if unknown."""
    try:
        value = float(json.loads((path / "state.json").read_text())[FIGURE])
    except (OSError, ValueError, KeyError, TypeError):
        return math.inf
    return value if math.isfinite(value) else math.inf
