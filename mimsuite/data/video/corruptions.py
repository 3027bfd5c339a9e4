"""Corruptions of clips; views are (R, C, T, h, w)."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from mimsuite.data.corruptions import Corruption


def shuffle(clip: Tensor, share: float, rng: np.random.Generator) -> Tensor:
    """Frames in random order within parts of ``share`` of the clip; 1: all frames.

    A class that only the order of frames tells, such as left and right, falls to chance then.
    """
    frames = clip.shape[2]
    length = max(2, round(share * frames))
    order = np.concatenate(
        [start + rng.permutation(min(length, frames - start)) for start in range(0, frames, length)]
    )
    return clip[:, :, torch.from_numpy(order)]


CORRUPTIONS = (Corruption("shuffle", (0.25, 0.5, 1.0), "of the clip, its frames mixed", shuffle),)
