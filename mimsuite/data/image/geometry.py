"""Crop boxes: pure functions of (rng, height, width)."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

_TRIES = 10


class Box(NamedTuple):
    """A rectangle in pixels."""

    top: int
    left: int
    height: int
    width: int


def whole(height: int, width: int) -> Box:
    """The whole image as a box."""
    return Box(0, 0, height, width)


def random_resized(
    rng: np.random.Generator,
    height: int,
    width: int,
    scale: tuple[float, float],
    ratio: tuple[float, float],
) -> Box:
    """torchvision's ``RandomResizedCrop``: ten tries, then a central box.

    Args:
        scale: range of box area / image area, drawn uniformly.
        ratio: range of width / height, drawn log-uniformly.
    """
    for _ in range(_TRIES):
        box_height, box_width = _draw(rng, height * width, scale, ratio)
        if 0 < box_width <= width and 0 < box_height <= height:
            return _placed(rng, height, width, box_height, box_width)
    box_height, box_width = height, width
    if width / height < min(ratio):
        box_height = round(width / min(ratio))
    elif width / height > max(ratio):
        box_width = round(height * max(ratio))
    top, left = (height - box_height) // 2, (width - box_width) // 2
    return Box(top, left, box_height, box_width)


def single_try(
    rng: np.random.Generator,
    height: int,
    width: int,
    scale: tuple[float, float],
    ratio: tuple[float, float],
) -> Box:
    """One draw, its sides clipped to the image, as in the TPU code of MAE and BEiT."""
    box_height, box_width = _draw(rng, height * width, scale, ratio)
    box_height = min(max(box_height, 1), height)
    box_width = min(max(box_width, 1), width)
    return _placed(rng, height, width, box_height, box_width)


def centre(height: int, width: int, box_height: int, box_width: int) -> Box:
    """The central box; as in torchvision's ``CenterCrop``, half an odd margin rounds to even."""
    top, left = round((height - box_height) / 2), round((width - box_width) / 2)
    return Box(top, left, box_height, box_width)


def covering(height: int, width: int, target: tuple[int, int]) -> tuple[int, int]:
    """The smallest size of the image's aspect ratio that covers ``target``."""
    target_height, target_width = target
    if target_height * width >= target_width * height:
        return target_height, max(target_width, int(target_height * width / height))
    return max(target_height, int(target_width * height / width)), target_width


def _draw(
    rng: np.random.Generator,
    area: int,
    scale: tuple[float, float],
    ratio: tuple[float, float],
) -> tuple[int, int]:
    # Same value as rng.uniform(), without its argument checks, which would dominate the cost.
    target = area * (scale[0] + (scale[1] - scale[0]) * rng.random())
    low, high = math.log(ratio[0]), math.log(ratio[1])
    aspect = math.exp(low + (high - low) * rng.random())
    return round(math.sqrt(target / aspect)), round(math.sqrt(target * aspect))


def _placed(
    rng: np.random.Generator, height: int, width: int, box_height: int, box_width: int
) -> Box:
    top = int(rng.integers(height - box_height + 1))
    left = int(rng.integers(width - box_width + 1))
    return Box(top, left, box_height, box_width)
