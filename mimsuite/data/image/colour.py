"""Colour augmentation: timm's RandAugment (Cubuk et al., arXiv:1909.13719) and colour jitter, both
as pure functions of a generator."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from mimsuite.config.keys.shared import AugmentSection
from mimsuite.errors import UserError


class RandAugment:
    """timm's policy for one view.

    Args:
        section: ``randaugment`` is timm's policy string; ``mean`` is the fill colour.
        size: short side of the view; translations are fractions of it.

    Raises:
        UserError: timm cannot parse the policy.
    """

    def __init__(self, section: AugmentSection, size: int) -> None:
        from timm.data.auto_augment import posterize, rand_augment_transform  # takes seconds

        fill = tuple(min(255, round(255 * value)) for value in section.mean)
        hints = {
            "translate_const": int(size * 0.45),
            "img_mean": fill,
            "interpolation": getattr(Image.Resampling, section.interpolation.upper()),
        }
        assert section.randaugment is not None
        try:
            self._policy = rand_augment_transform(section.randaugment, hints)
        except (AssertionError, ValueError, KeyError, IndexError):
            raise UserError(
                f"augment.randaugment: timm has no policy '{section.randaugment}'; one is "
                f"rand-m9-mstd0.5-inc1"
            ) from None
        for change in self._policy.ops:
            if change.aug_fn is posterize:
                change.aug_fn = partial(_posterized, posterize)

    def __call__(self, view: Tensor, rng: np.random.Generator) -> Tensor:
        """(3, h, w) uint8 -> the same.

        Raises:
            UserError: the view is not RGB.
        """
        if view.dtype != torch.uint8 or view.shape[0] != 3:
            raise UserError("augment.randaugment works on data.channels=rgb only")
        image = Image.fromarray(view.permute(1, 2, 0).numpy())
        with _seeded(int(rng.integers(1 << 32))):
            image = self._policy(image)
        return torch.from_numpy(np.array(image)).permute(2, 0, 1)


class ColourJitter:
    """Changes brightness, contrast and saturation by random factors, in random order.

    Args:
        strength: factors are uniform in [1 - strength, 1 + strength].
    """

    def __init__(self, strength: float, rng: np.random.Generator) -> None:
        self.factors = [1 + strength * (2 * u - 1) for u in rng.random(3).tolist()]
        self.order = rng.permutation(3).tolist()

    def __call__(self, view: Tensor) -> Tensor:
        """(3, h, w) uint8 -> the same.

        Raises:
            UserError: the view is not RGB.
        """
        from torchvision.transforms.v2 import functional as change  # takes a second to import

        if view.shape[0] != 3:
            raise UserError("augment.jitter works on data.channels=rgb only")
        changes = (change.adjust_brightness, change.adjust_contrast, change.adjust_saturation)
        for number in self.order:
            view = changes[number](view, self.factors[number])
        return view


def _posterized(
    posterize: Callable[..., Image.Image], image: Image.Image, bits: int, **options: Any
) -> Image.Image:
    """timm's posterize, with 0 bits giving black. Pillow 13 rejects 0 bits, which policies of
    magnitude 10 ask for, and sometimes those of magnitude 9 with noise."""
    return posterize(image, bits, **options) if bits else Image.new(image.mode, image.size)


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Temporarily seed Python's and numpy's global generators, which timm draws from."""
    python, arrays = random.getstate(), np.random.get_state()
    random.seed(seed)
    np.random.seed(seed)
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(arrays)
