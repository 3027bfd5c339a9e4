"""Classes of voxels as targets; class 0 is nothing and does not count.

Letters: B batch, K classes with 0, R voxels a side.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

_BEND = 1.02  # of ENet's weights (Paszke et al., arXiv:1606.02147)


def class_weights(counts: Tensor) -> Tensor:
    """(K,) float32 ``1 / ln(1.02 + share)`` of voxels that have a class; 0 for class 0.

    Args:
        counts: (K,) voxels of each class.
    """
    counts = counts.double()
    counts[0] = 0
    weights = 1 / (_BEND + counts / counts.sum().clamp_min(1)).log()
    weights[0] = 0
    return weights.float()


def voxel_loss(logits: Tensor, labels: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """(weighted mean cross-entropy of voxels that have a class, sum of their weights).

    Published code sets the logits of the others to 0, and their weight, which is the same.

    Args:
        logits: (B, K, R, R, R).
        labels: (B, R, R, R) int64.
        weights: (K,), 0 for class 0.
    """
    total = F.cross_entropy(logits.float(), labels, weights, reduction="sum")
    mass = weights[labels].sum().clamp_min(1e-6)
    return total / mass, mass


def voxel_counts(found: Tensor, labels: Tensor, classes: int) -> Tensor:
    """(B, 3, K) int64 of each scene: voxels found rightly, found, and true, of each class; counted
    where there is a class."""
    rows = []
    for guess, true in zip(found, labels, strict=True):
        known = true > 0
        parts = true[known & (guess == true)], guess[known], true[known]
        rows.append(torch.stack([torch.bincount(part, minlength=classes) for part in parts]))
    return torch.stack(rows)
