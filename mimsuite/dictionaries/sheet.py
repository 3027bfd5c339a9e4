"""The concept sheet: the strongest codes, each with the images in which it is strongest.

Letters: E images of a code, C channels, (h, w) grid of patches, (H, W) pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from mimsuite.data import views_of
from mimsuite.data.source import Source
from mimsuite.dictionaries.base import Dictionary
from mimsuite.dictionaries.rows import Rows
from mimsuite.evaluate.features import normalized_batches
from mimsuite.methods import Panel
from mimsuite.report.pictures import to_pixels

_DIM = 0.25  # brightness where a code is 0


class Concept(NamedTuple):
    """A code on the sheet.

    Attributes:
        images: ids of its strongest images, the strongest first.
    """

    code: int
    title: str
    images: list[int]


@torch.no_grad()
def concept_panels(
    concepts: Sequence[Concept],
    dictionary: Dictionary,
    rows: Rows,
    pixels: dict[int, Tensor],
    grid: tuple[int, int],
) -> list[Panel]:
    """One panel per concept: (E, 3, H, W) in [0, 1], dimmed where the code is 0.

    Args:
        pixels: id of an image -> (C, H, W) uint8.
        grid: rows and columns (h, w) of patches.
    """
    most = max((len(concept.images) for concept in concepts), default=0)
    panels = []
    for concept in concepts:
        cells = []
        for image in concept.images:
            heat = dictionary.encode(rows.image(image))[:, concept.code]  # (h * w,)
            cells.append(_lit(pixels[image], heat.view(grid).cpu()))
        blank = torch.ones_like(cells[0])
        cells += [blank] * (most - len(cells))
        panels.append(Panel(concept.title, torch.stack(cells)))
    return panels


def pixels_of(
    source: Source, resolved: Any, positions: Sequence[int], numbers: Sequence[int]
) -> dict[int, Tensor]:
    """Id of an image -> its evaluation view (C, H, W) uint8.

    Args:
        positions: positions of all images in the source.
        numbers: ids of the requested images.
    """
    section = resolved.recipe.augment
    chosen = sorted(set(numbers))
    places = [positions[number] for number in chosen]
    pixels: dict[int, Tensor] = {}
    views = views_of(resolved.recipe)
    for batch in normalized_batches(source, resolved, torch.device("cpu"), places, views):
        shown = to_pixels(batch.image, section.mean, section.std)
        pixels |= dict(zip(batch.index.tolist(), shown, strict=True))
    return {number: pixels[positions[number]] for number in chosen}


def _lit(image: Tensor, heat: Tensor) -> Tensor:
    """The image (C, H, W) as (3, H, W) float in [0, 1], dimmed where the heat (h, w) is low."""
    shown = image[:3].float().expand(3, -1, -1) / 255
    scaled = (heat / heat.amax().clamp(min=1e-12)).clamp(0, 1)[None, None]
    light = F.interpolate(scaled, shown.shape[1:], mode="bilinear", align_corners=False)[0]
    return shown * (_DIM + (1 - _DIM) * light)
