"""Views of images: ``image`` (C, H, W), uint8 until it is on the device."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from mimsuite.batch import Batch
from mimsuite.config.keys.section import height_width
from mimsuite.config.keys.shared import AugmentSection, Recipe
from mimsuite.data.image.augment import EvalTransform, TrainTransform, channels_match
from mimsuite.data.image.normalize import Normalize
from mimsuite.data.source import Source
from mimsuite.data.views import BY_STATISTICS, Views
from mimsuite.errors import UserError


class ImageViews(Views):
    """Views by the recipe's ``augment:``, at the size and channels of ``model.encoder``."""

    scaled_by = BY_STATISTICS

    def __init__(self, recipe: Recipe) -> None:
        encoder = recipe.model.encoder
        self.augment: AugmentSection = recipe.augment
        self.size = height_width(encoder.image_size)
        self.channels: int | None = encoder.in_channels
        self._train = TrainTransform(self.augment, self.size)
        self._evaluate: EvalTransform | None = None

    def train(self, sample: Tensor, rng: np.random.Generator) -> dict[str, Tensor]:
        """(C, H, W) -> ``image`` (C, h, w) of the same dtype, uint8 or float32, and
        ``augment.second_view`` if set."""
        channels_match(sample, self.channels, "it")
        return self._train.views(sample, rng)

    def evaluate(self, sample: Tensor) -> dict[str, Tensor]:
        """The image resized and center-cropped.

        Raises:
            UserError: ``augment.eval_resize`` is smaller than the view, or the channels differ.
        """
        channels_match(sample, self.channels, "it")
        if self._evaluate is None:  # built late: eval_resize is only checked when it is used
            self._evaluate = EvalTransform(self.augment, self.size)
        return {"image": self._evaluate(sample)}

    def normalizer(self, device: torch.device | str) -> Callable[[Batch], Batch]:
        return Normalize(self.augment, device)

    def shapes(self) -> dict[str, tuple[int, ...]]:
        channels = self.channels or len(self.augment.mean)
        sizes = {"image": self.size}
        if (second := self.augment.second_view) is not None:
            sizes[second.name] = height_width(second.image_size)
        return {name: (channels, *size) for name, size in sizes.items()}

    def check(self, source: Source) -> None:
        """Compare the channels of data, model and ``augment.mean``."""
        given = source.decoder.channel_count
        if given is not None and self.channels is not None and given != self.channels:
            raise UserError(
                f"data.channels={source.decoder.channels} gives images of {given} channels, the "
                f"model takes in_channels={self.channels}: change one of them"
            )
        count = self.channels or given
        if count is not None and len(self.augment.mean) not in (1, count):
            raise UserError(
                f"augment.mean has {len(self.augment.mean)} values for images of {count} "
                f"channels: give one value a channel in augment.mean and augment.std, or one for "
                f"all"
            )
        for key in ("randaugment", "jitter"):
            if getattr(self.augment, key) and count not in (None, 3):
                raise UserError(f"augment.{key} works on data.channels=rgb only")
