"""Nearest-neighbour segmentation: a patch takes the classes of its most similar training patches.

Nothing is trained. A patch gets one share per class; shares are interpolated bilinearly to the
label resolution.

Letters: N samples, D width, K classes, k neighbours, R patches in the bank, Q patches per image.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from mimsuite.data.dense import IGNORE
from mimsuite.noise import keyed_rng

_CHUNK = 64  # images per chunk
_KNOWN = 0.5  # smallest share of labelled pixels in a training patch


@dataclass(frozen=True)
class PatchBank:
    """Training patches.

    Attributes:
        features: (R, D), normalised to length 1.
        shares: (R, K) share of each class among the pixels of a patch.
        neighbours: k, number of neighbours.
    """

    features: Tensor
    shares: Tensor
    neighbours: int

    def __call__(self, features: Tensor, size: tuple[int, int]) -> Tensor:
        """(B, D, h, w) features -> (B, K, *size) shares, means over the nearest patches."""
        grid = features.shape[2:]
        queries = F.normalize(features.flatten(2).transpose(1, 2), dim=2)  # (B, Q, D)
        count = min(self.neighbours, len(self.features))
        maps = []
        for image in queries:
            nearest = (image @ self.features.T).topk(count, dim=1).indices  # (Q, k)
            maps.append(self.shares[nearest].mean(1))  # (Q, K)
        found = torch.stack(maps).transpose(1, 2).unflatten(2, grid)
        return F.interpolate(found, size, mode="bilinear", align_corners=False)


def patch_bank(
    table: np.ndarray,
    truth: np.ndarray,
    rows: np.ndarray,
    classes: int,
    recipe: Any,
    device: torch.device,
) -> PatchBank:
    """``target.segments.bank`` random patches (by ``train.seed``) of the samples ``rows``; all
    patches if there are fewer.

    Args:
        table: (N, D, h, w); truth (N, H, W) uint8.
        recipe: a :class:`~mimsuite.methods.dense.DenseRecipe`.
    """
    height, width = table.shape[2:]
    shares = []
    for chunk in np.array_split(rows, max(1, len(rows) // _CHUNK)):
        shares.append(_shares(truth[chunk], classes, (height, width)))
    share = torch.cat(shares)  # (rows * h * w, K)
    known = (share.sum(1) >= _KNOWN).nonzero()[:, 0].numpy()
    size, seed = recipe.target.segments.bank, recipe.train.seed
    drawn = np.sort(keyed_rng(seed, "patch bank").permutation(known)[:size])
    image, patch = np.divmod(drawn, height * width)
    rows_of, columns_of = np.divmod(patch, width)
    features = table[rows[image], :, rows_of, columns_of]  # (R, D)
    kept = share[torch.from_numpy(drawn)]
    return PatchBank(
        F.normalize(torch.from_numpy(features).float(), dim=1).to(device),
        (kept / kept.sum(1, keepdim=True)).to(device),
        recipe.eval.neighbours,
    )


def _shares(truth: np.ndarray, classes: int, grid: tuple[int, int]) -> Tensor:
    """(n, H, W) masks -> (n * h * w, K) class shares of each patch, in raster order."""
    labels = torch.from_numpy(truth).long()
    labels = labels.where(labels != IGNORE, classes)
    hot = F.one_hot(labels, classes + 1)[..., :classes].permute(0, 3, 1, 2).float()
    return F.adaptive_avg_pool2d(hot, grid).flatten(2).transpose(1, 2).flatten(0, 1)
