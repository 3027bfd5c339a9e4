"""Corruptions of clips; views are (R, C, T, h, w)."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from mimsuite.data.corruptions import Corruption


def shuffle(clip: Tensor, share: float, rng: np.random.Generator) -> Tensor:
    """Shuffle frames within parts of the clip of length ``share``; 1: shuffle all frames.

    Classes that differ only in frame order, such as left and right, then drop to chance level.
    """
    frames = clip.shape[2]
    length = max(2, round(share * frames))
    order = np.concatenate(
        [start + rng.permutation(min(length, frames - start)) for start in range(0, frames, length)]
    )
    return clip[:, :, torch.from_numpy(order)]


CORRUPTIONS = (Corruption("shuffle", (0.25, 0.5, 1.0), "of the clip, its frames mixed", shuffle),)
