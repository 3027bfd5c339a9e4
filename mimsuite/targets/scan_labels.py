"""Classes of voxels as targets: soft Dice and cross-entropy (UNETR, arXiv:2103.10504, equation 5).

Letters: B batch, K classes with the background, (X, Y, Z) voxels.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

_EPS = 1e-6


def dice_cross_entropy(logits: Tensor, labels: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
    """(1 - mean soft Dice over scans and classes, mean cross-entropy), of the known voxels.

    The Dice of a class is ``2 sum(g y) / (sum(g ** 2) + sum(y ** 2))`` with truth g and
    probability y; the background is a class.

    Args:
        logits: (B, K, X, Y, Z).
        labels: (B, X, Y, Z) int64 in [0, K).
        known: (B, X, Y, Z) bool; the class of other voxels is not known.
    """
    logits = logits.float()
    entropy = F.cross_entropy(logits, labels, reduction="none")  # (B, X, Y, Z)
    entropy = (entropy * known).sum() / known.sum().clamp_min(1)
    classes = torch.arange(logits.shape[1], device=labels.device).view(1, -1, 1, 1, 1)
    true = (labels.unsqueeze(1) == classes).float()  # one_hot would look at the labels on the host
    inside = known.unsqueeze(1).float()
    true, found = true * inside, logits.softmax(dim=1) * inside
    axes = (2, 3, 4)
    shared = 2 * (true * found).sum(axes)  # (B, K)
    dice = shared / ((true**2).sum(axes) + (found**2).sum(axes) + _EPS)
    return 1 - dice.mean(), entropy


def dice(found: Tensor, true: Tensor) -> Tensor:
    """0-d Dice of two masks; NaN where both are empty."""
    total = found.sum() + true.sum()
    return torch.where(total > 0, 2 * (found & true).sum() / total.clamp_min(1), torch.nan)
