"""Voxel classes as targets; class 0 is unlabelled and carries no loss.

Letters: B batch, K classes including 0, R voxels per side.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

_BEND = 1.02  # constant of ENet's class weights (Paszke et al., arXiv:1606.02147)


def class_weights(counts: Tensor) -> Tensor:
    """(K,) float32 ``1 / ln(1.02 + share)``, share of the labelled voxels; 0 for class 0.

    Args:
        counts: (K,) number of voxels per class.
    """
    counts = counts.double()
    counts[0] = 0
    weights = 1 / (_BEND + counts / counts.sum().clamp_min(1)).log()
    weights[0] = 0
    return weights.float()


def voxel_loss(logits: Tensor, labels: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """(weighted mean cross-entropy over labelled voxels, sum of their weights).

    Published code zeroes the logits and weights of unlabelled voxels, which gives the same loss.

    Args:
        logits: (B, K, R, R, R).
        labels: (B, R, R, R) int64.
        weights: (K,), 0 for class 0.
    """
    total = F.cross_entropy(logits.float(), labels, weights, reduction="sum")
    mass = weights[labels].sum().clamp_min(1e-6)
    return total / mass, mass


def voxel_counts(found: Tensor, labels: Tensor, classes: int) -> Tensor:
    """(B, 3, K) int64 numbers of correct, predicted and true voxels per scene and class.

    Only labelled voxels are counted.

    Args:
        found: (B, R, R, R) int64 predicted classes.
        labels: (B, R, R, R) int64.
    """
    rows = []
    for guess, true in zip(found, labels, strict=True):
        known = true > 0
        parts = true[known & (guess == true)], guess[known], true[known]
        rows.append(torch.stack([torch.bincount(part, minlength=classes) for part in parts]))
    return torch.stack(rows)
