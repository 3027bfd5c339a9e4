"""Pictures that move: the panels of clips, frame by frame."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from mimsuite.files import write_atomic
from mimsuite.report.pictures import panel_grid

if TYPE_CHECKING:
    from mimsuite.methods import Panel

_MILLISECONDS = 120  # that a frame is shown


def moving(panels: Sequence[Panel]) -> bool:
    """Whether a panel holds clips (B, C, T, H, W)."""
    return any(panel.images.ndim == 5 for panel in panels)


def save_animation(
    path: str | Path,
    panels: Sequence[Panel],
    mean: Sequence[float],
    std: Sequence[float],
    rows: int = 8,
) -> Path:
    """Write a GIF that repeats for ever: the grid of :func:`save_panels`, a frame at a time.

    Args:
        panels: clips (B, C, T, H, W) of the same T; images among them stand still.
    """
    count = max(panel.images.shape[2] for panel in panels if panel.images.ndim == 5)
    frames = []
    for number in range(count):
        shown = [
            panel if panel.images.ndim == 4 else replace(panel, images=panel.images[:, :, number])
            for panel in panels
        ]
        frames.append(panel_grid(shown, mean, std, rows))
    data = io.BytesIO()
    frames[0].save(
        data,
        format="GIF",
        save_all=True,
        append_images=frames[1:],
        duration=_MILLISECONDS,
        loop=0,
    )
    return write_atomic(Path(path), data.getvalue())
