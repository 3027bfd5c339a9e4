"""Views of images with dense truth: ``image`` as the encoder takes it, and beside it ``segments``
and ``depth`` at one label resolution, all of the whole image."""

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
    """An image and what is known of its pixels.

    Attributes:
        image: (C, H, W).
        segments: (H, W) uint8 classes, 255 = none; ``None`` where the set has none.
        depth: (H, W) float32 metres, 0 = none; likewise.
    """

    image: Tensor
    segments: Tensor | None
    depth: Tensor | None


class DenseViews(Views):
    """Deterministic views by a dense recipe. The sides of an image are scaled each for itself, so
    that nothing is cut off."""

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
        """Of ``image``; the truth stays on the host."""
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
    """(H, W) -> (h, w) of the same dtype: the pixel in the middle of each."""
    return F.interpolate(truth[None, None].float(), size, mode="nearest-exact")[0, 0].to(
        truth.dtype
    )
