"""The mini-PointNet that turns a group of points into a token (Point-BERT, arXiv:2111.14819).

Letters: B clouds, G groups, K points of a group, D width.
"""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn


class MiniPointNet(nn.Module):
    """(B, G, K, 3) points relative to their centres -> (B, G, D) tokens.

    A shared MLP maps each point to a feature f (256 numbers as published); g is the maximum of f
    over the group. A second MLP maps [g, f], and the token is the maximum of its outputs. The first
    layer of the second MLP is linear, so ``W [g; f] = W_g g + W_f f``. ``W_g g`` is computed once
    per group instead of once per point: the same function at two thirds of the cost.

    Parameters have the names and shapes of the published layers, 1x1 convolutions. The statistics
    of both batch norms are over the points of all input groups.
    """

    def __init__(self, width: int, hidden: tuple[int, int, int] = (128, 256, 512)) -> None:
        super().__init__()
        first, lifted, mixed = hidden
        self.first_conv = nn.Sequential(
            nn.Conv1d(3, first, 1), nn.BatchNorm1d(first), nn.ReLU(), nn.Conv1d(first, lifted, 1)
        )
        self.second_conv = nn.Sequential(
            nn.Conv1d(2 * lifted, mixed, 1),
            nn.BatchNorm1d(mixed),
            nn.ReLU(),
            nn.Conv1d(mixed, width, 1),
        )

    def forward(self, points: Tensor) -> Tensor:
        batch, groups, size, _ = points.shape
        first, second = list[Any](self.first_conv), list[Any](self.second_conv)
        lift, norm, _, widen = first
        x = F.relu(norm(linear(points.reshape(-1, 3), lift)))  # (B G K, first)
        local = linear(x, widen)  # (B G K, lifted)
        overall = local.unflatten(0, (-1, size)).max(dim=1).values  # (B G, lifted)
        mix, norm, _, out = second
        half = overall.shape[1]
        weight = mix.weight.squeeze(-1)  # (mixed, 2 lifted)
        x = F.linear(local, weight[:, half:]).unflatten(0, (-1, size))  # (B G, K, mixed)
        x = x + F.linear(overall, weight[:, :half], mix.bias).unsqueeze(1)
        x = F.relu(norm(x.flatten(0, 1)))
        tokens = linear(x, out).unflatten(0, (-1, size)).max(dim=1).values
        return tokens.unflatten(0, (batch, groups))


def linear(x: Tensor, layer: nn.Conv1d) -> Tensor:
    """Apply a convolution of kernel size 1 to (..., channels) as one matrix product."""
    return F.linear(x, layer.weight.squeeze(-1), layer.bias)
