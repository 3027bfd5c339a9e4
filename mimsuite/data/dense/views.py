"""Views of images with per-pixel labels: ``image`` at the encoder's input size, ``segments`` and
``depth`` at the label resolution; all show the whole image."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from mimsuite.batch import Batch
from mimsuite.config.keys.section import height_width
from mimsuite.data.image import geometry
from mimsuite.data.image.augment import channels_match, resize
from mimsuite.data.image.normalize import Normalize
from mimsuite.data.views import Views

if TYPE_CHECKING:
    from mimsuite.config.keys.shared import Recipe


@dataclass(frozen=True)
class DenseSample:
    """A decoded image with its per-pixel labels.

    Attributes:
        image: (C, H, W).
        segments: (H, W) uint8 class ids, 255 = unlabelled; ``None`` where the set has no classes.
        depth: (H, W) float32 metres, 0 = unknown; ``None`` where the set has no depth.
    """

    image: Tensor
    segments: Tensor | None
    depth: Tensor | None


class DenseViews(Views):
    """Deterministic views of a dense recipe. Height and width are scaled independently, so nothing
    is cropped."""

    def __init__(self, recipe: Recipe) -> None:
        encoder = recipe.model.encoder
        self.augment, self.channels = recipe.augment, encoder.in_channels
        self.size = height_width(encoder.image_size)
        self.resolution = height_width(recipe.target.resolution)

    def train(self, sample: DenseSample, rng: np.random.Generator) -> dict[str, Tensor]:
        raise NotImplementedError("a dense probe reads every image once, by its evaluation view")

    def evaluate(self, sample: DenseSample) -> dict[str, Tensor]:
        channels_match(sample.image, self.channels, "it")
        box = geometry.whole(*sample.image.shape[-2:])
        found = {"image": resize(sample.image, box, self.size, self.augment.interpolation)}
        for name in ("segments", "depth"):
            truth = getattr(sample, name)
            if truth is not None:
                found[name] = nearest(truth, self.resolution)
        return found

    def normalizer(self, device: torch.device | str) -> Callable[[Batch], Batch]:
        """Normalizes ``image``; the labels stay on the CPU."""
        normalize = Normalize(self.augment, device)

        def bring(batch: Batch) -> Batch:
            truth = {name: view for name, view in batch.views.items() if name != "image"}
            brought = normalize(replace(batch, views={"image": batch.image}))
            return replace(brought, views={**brought.views, **truth})

        return bring

    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {
            "image": (self.channels, *self.size),
            "segments": self.resolution,
            "depth": self.resolution,
        }


def nearest(truth: Tensor, size: tuple[int, int]) -> Tensor:
    """Nearest-neighbour resize of (H, W) to (h, w), same dtype: samples at pixel centres."""
    return F.interpolate(truth[None, None].float(), size, mode="nearest-exact")[0, 0].to(
        truth.dtype
    )
