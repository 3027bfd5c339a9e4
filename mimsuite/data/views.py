"""Views: how each modality turns a decoded sample into the named tensors of a batch.

A sample comes from :meth:`Source.decode` (pixels, points, an encoded video) and becomes views of
fixed shape, all with the SAME keyed random geometry. ``normalizer`` normalises them on the device.
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

_MOST_PIXELS = 1024  # images with at most this many numbers are raw features unchanged
_PIXEL_SIDE = 16  # larger images are averaged to this many rows and columns


BY_STATISTICS = "augment.mean and augment.std (`mimsuite data stats` prints them)"


class Views(ABC):
    """Views of one modality by a recipe. Must be picklable: loader workers receive a copy.

    Attributes:
        main: name of the view that classifiers read.
        scaled_by: keys of the recipe that bring stored values to those of a model; empty: none.
        learns_labels: whether the voxels' classes are learnt, so that samples need a label map.
        rows: batch rows per sample in evaluation; all first rows come before all second ones.
    """

    main: ClassVar[str] = "image"
    scaled_by: ClassVar[str] = ""
    learns_labels: bool = False
    rows: int = 1

    @abstractmethod
    def train(self, sample: Any, rng: np.random.Generator) -> dict[str, Tensor]:
        """Random views; all randomness comes from ``rng``, which is keyed by epoch and sample.

        Raises:
            CorruptSample: the sample is found to be corrupt, such as a clip with unreadable frames.
            UserError: the recipe does not accept the sample.
        """

    @abstractmethod
    def evaluate(self, sample: Any) -> dict[str, Tensor]:
        """Deterministic views; raises as :meth:`train`."""

    @abstractmethod
    def normalizer(self, device: torch.device | str) -> Callable[[Batch], Batch]:
        """A function that moves a batch to the device and converts it to the method's input."""

    @abstractmethod
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """View name -> shape of one sample, as the method sees it."""

    def test(self) -> Views:
        """The views for testing a trained classifier, possibly several per sample."""
        return self

    def raw(self, batch: Batch) -> Tensor:
        """(B, D) float32 features without an encoder, from normalised samples: the baseline of
        probes."""
        return raw_pixels(batch.views[self.main])

    def notice_unused(self, sample: Any) -> None:  # noqa: B027, nothing is left by default
        """Report what these views drop from a decoded sample; see :mod:`mimsuite.data.unused`."""

    def require_fit(self, sample: Any) -> None:  # noqa: B027, every sample fits by default
        """Raise a ``UserError`` if the recipe makes no view of a decoded sample.

        Called for a few samples before a run directory is made.
        """

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
    """(B, C, H, W) -> (B, D) float32: unchanged up to 1024 numbers, else averaged to 16 x 16."""
    if images[0].numel() > _MOST_PIXELS:
        images = torch.nn.functional.adaptive_avg_pool2d(images.float(), _PIXEL_SIDE)
    return images.flatten(1).float()
