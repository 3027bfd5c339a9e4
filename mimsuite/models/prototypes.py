"""Heads that score tokens by their directions against those of clusters.

Letters: D width, K clusters.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Clusters(nn.Module):
    """A linear layer on tokens of unit length: the codebook of an online clustering."""

    def __init__(self, width: int, clusters: int) -> None:
        super().__init__()
        self.layer = nn.Linear(width, clusters)
        nn.init.normal_(self.layer.weight)
        nn.init.zeros_(self.layer.bias)

    def forward(self, tokens: Tensor) -> Tensor:
        """(..., D) -> (..., K)."""
        scores: Tensor = self.layer(F.normalize(tokens.float(), dim=-1, eps=1e-7))
        return scores


class Prototypes(nn.Module):
    """Directions, each with a trained length, against tokens of unit length; without bias.

    Parameter names are those of weight normalisation (arXiv:1602.07868).
    """

    def __init__(self, width: int, clusters: int) -> None:
        super().__init__()
        self.weight_g = nn.Parameter(torch.ones(clusters, 1))
        self.weight_v = nn.Parameter(torch.empty(clusters, width))
        nn.init.trunc_normal_(self.weight_v, std=0.02)

    def forward(self, tokens: Tensor) -> Tensor:
        """(..., D) -> (..., K)."""
        lengths = self.weight_v.norm(dim=1, keepdim=True) + 1e-8
        weight = self.weight_v * (self.weight_g / lengths)
        return F.linear(F.normalize(tokens.float(), dim=-1), weight)
