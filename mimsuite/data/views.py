"""What a modality makes of a decoded sample: the named views that a batch consists of.

A sample comes from :meth:`Source.decode` (pixels, points, an encoded clip still to be read) and
leaves as views of fixed shape, all cut by ONE keyed draw of geometry. Statistics are left to
``normalizer``, which runs on the device.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from mimsuite.batch import Batch
from mimsuite.config.keys.shared import Recipe
from mimsuite.data.modalities import get, target
from mimsuite.data.source import Source
from mimsuite.errors import UserError

_MOST_PIXELS = 1024  # numbers of a raw image that a probe takes as they are
_PIXEL_SIDE = 16  # larger images are averaged down to this many rows and columns


class Views(ABC):
    """Views of one modality by a recipe. Picklable: it goes to loader workers.

    Attributes:
        main: the view that classifiers read.
        rows: of a batch that a sample becomes when evaluated, all first ones before all second.
    """

    main: ClassVar[str] = "image"
    rows: int = 1

    @abstractmethod
    def train(self, sample: Any, rng: np.random.Generator) -> dict[str, Tensor]:
        """Random views; every draw comes from ``rng``, which is keyed by epoch and sample.

        Raises:
            CorruptSample: what only shows now, as a clip whose frames cannot be read.
            UserError: a sample that the recipe cannot take.
        """

    @abstractmethod
    def evaluate(self, sample: Any) -> dict[str, Tensor]:
        """Deterministic views; raises as :meth:`train`."""

    @abstractmethod
    def normalizer(self, device: torch.device | str) -> Callable[[Batch], Batch]:
        """What brings a batch to the device, as floats, as methods see it."""

    @abstractmethod
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of one sample in each view, as the method sees it."""

    def test(self) -> Views:
        """The views that a trained classifier is tested on, maybe several of a sample."""
        return self

    def raw(self, batch: Batch) -> Tensor:
        """(B, D) float32: normalised samples without any encoder, for the baseline of probes."""
        return raw_pixels(batch.views[self.main])

    def notice_unused(self, sample: Any) -> None:  # noqa: B027, nothing is left by default
        """Notice what these views leave of a decoded sample; see :mod:`mimsuite.data.unused`."""

    def check(self, source: Source) -> None:  # noqa: B027, nothing to compare by default
        """Compare recipe and source before the first sample is read; raises ``UserError``."""


def views_of(recipe: Recipe) -> Views:
    """The views of a recipe's modality, ``recipe.modality``.

    Raises:
        UserError: the modality cannot be trained on.
    """
    modality = get(recipe.recipe.modality)
    if modality.views is None:
        raise UserError(f"{modality.name} samples cannot be trained on in this version")
    views: Views = target(modality.views)(recipe)
    return views


def raw_pixels(images: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, D) float32: as it is up to 1024 numbers, else averaged to 16 x 16."""
    if images[0].numel() > _MOST_PIXELS:
        images = torch.nn.functional.adaptive_avg_pool2d(images.float(), _PIXEL_SIDE)
    return images.flatten(1).float()
