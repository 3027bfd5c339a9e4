"""Similarity of dictionaries trained from different seeds."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from mimsuite.errors import UserError


def pairing(
    first: Tensor, second: Tensor, distance: Literal["cosine", "euclid"] = "cosine"
) -> Tensor:
    """(C,) distance of each atom to its partner in the pairing with the smallest sum.

    Args:
        first, second: (C, D) atoms.
        distance: 1 - cosine, or Euclidean.

    Raises:
        UserError: scipy is not installed.
    """
    try:
        from scipy.optimize import linear_sum_assignment
    except ImportError:
        raise UserError(
            "pairing the atoms of two seeds needs scipy: pip install 'mimsuite[dictionary]', or "
            "set method.seeds=1"
        ) from None
    first, second = first.detach().float().cpu(), second.detach().float().cpu()
    if distance == "cosine":
        costs = 1 - F.normalize(first, dim=1) @ F.normalize(second, dim=1).T
    else:
        costs = torch.cdist(first, second, compute_mode="donot_use_mm_for_euclid_dist")
    rows, columns = linear_sum_assignment(costs.numpy())
    return costs[torch.from_numpy(rows), torch.from_numpy(columns)]


def stability(first: Tensor, second: Tensor) -> float:
    """Mean cosine of the best pairing of atoms (C, D); 1 for equal dictionaries."""
    return 1 - float(pairing(first, second).mean())
