"""Pictures that training draws of a few samples: what goes in, what is hidden, what comes out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, cast

from mimsuite.report.pictures import save_batch, save_panels

if TYPE_CHECKING:
    from mimsuite.batch import Batch
    from mimsuite.config.keys.shared import Recipe
    from mimsuite.methods import Method, Panel
    from mimsuite.report.run_directory import RunDirectory


def first_pictures(
    run: RunDirectory,
    method: Method,
    batch: Batch,
    *,
    seed: int,
    step: int | None = None,
    rows: int = 8,
) -> list[Path]:
    """Draw samples into the run's ``images/``.

    Without ``step``: ``first_batch.png``, and ``masks.png`` with originals and visible parts. With
    ``step``: ``reconstruction-SSSSSSSS.png`` with every panel. Masks are those of step 0, so
    pictures of the same batch are comparable over time. The method's training flags and the random
    state are not changed. A picture that cannot be written is reported in the run's log and does
    not stop training.

    Args:
        batch: normalised, on the method's device; the first 32 samples are shown in the first
            batch, ``rows`` in the others.
        seed: of the masks' noise.

    Returns:
        The files written: fewer for methods without panels or batches without images.
    """
    augment = cast("Recipe", method.recipe).augment
    statistics = augment.mean, augment.std
    written: list[Path] = []
    try:
        if step is None and "image" in batch.views:
            path = run.images / "first_batch.png"
            written.append(save_batch(path, batch.image, *statistics))
        panels = draw_panels(method, batch.rows(0, rows), seed)
        if step is None:
            panels = [panel for panel in panels if panel.title.startswith(("original", "masked"))]
            path = run.images / "masks.png"
        else:
            path = run.images / f"reconstruction-{step:08d}.png"
        if panels:
            written.append(save_panels(path, panels, *statistics, rows=rows))
    except OSError as error:
        run.log(f"warning: picture not written: {error}")
    for path in written:
        run.picture(path, step or 0)
    return written


def draw_panels(method: Method, batch: Batch, seed: int) -> list[Panel]:
    """The method's panels of a normalised batch under the masks of (seed, step 0)."""
    import torch

    from mimsuite.methods import evaluating
    from mimsuite.noise import Noise

    noise = Noise(seed, 0, batch.index)
    with torch.no_grad(), evaluating(method):
        context = method.prepare(batch, noise)
        return method.panels(batch, method.mask(batch, noise, context), context)
