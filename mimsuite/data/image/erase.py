"""Random erasing (Zhong et al., arXiv:1708.04896) with per-pixel noise, on the uint8 view.

timm erases after normalisation, with standard normal noise. Here the loader worker draws the same
noise, keyed by the sample, and converts it to pixel values by the recipe's mean and std. The 3 % of
values below black or above white are clipped, which timm does not do. In return, batches stay uint8
and the result does not depend on the device.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

# timm's defaults, which MAE, BEiT and DeiT fine-tuning use.
_AREA = (0.02, 1 / 3)
_LOG_ASPECT = (math.log(0.3), math.log(1 / 0.3))
_TRIES = 10


def erase(
    view: Tensor, rng: np.random.Generator, mean: tuple[float, ...], std: tuple[float, ...]
) -> Tensor:
    """Fill one random rectangle of a (C, h, w) view with noise; uint8 or float32 in [0, 1]."""
    channels, height, width = view.shape
    for _ in range(_TRIES):
        area = height * width * rng.uniform(*_AREA)
        aspect = math.exp(rng.uniform(*_LOG_ASPECT))
        box_height, box_width = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if box_height < height and box_width < width:
            break
    else:
        return view
    top = int(rng.integers(height - box_height + 1))
    left = int(rng.integers(width - box_width + 1))
    noise = rng.standard_normal((channels, box_height, box_width), dtype=np.float32)
    column = (-1, 1, 1)
    pixels = noise * np.reshape(std, column) + np.reshape(mean, column)
    if view.dtype == torch.uint8:
        pixels = np.clip(np.rint(pixels * 255), 0, 255)
    view = view.clone()
    patch = torch.from_numpy(pixels).to(view.dtype)
    view[:, top : top + box_height, left : left + box_width] = patch
    return view
