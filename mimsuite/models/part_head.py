"""Point-MAE's head for part segmentation, with PointNet++'s feature propagation (arXiv:1706.02413).

Letters: B clouds, N points, G groups, F = levels * D features of a group, K parts.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mimsuite.models.point_net import linear
from mimsuite.noise import Noise
from mimsuite.tokens import nearest
from mimsuite.tokens.points import gather

_NEIGHBOURS = 3
_SMALLEST = 1e-8  # added to squared distances
_EMBEDDED = 64  # width of the object class's embedding
_HIDDEN = (512, 256)


class Propagation(nn.Module):
    """Features of groups -> features of points: interpolated, then a shared MLP."""

    def __init__(self, width: int, channels: Sequence[int]) -> None:
        super().__init__()
        sizes = [width + 3, *channels]
        pairs = list(pairwise(sizes))
        self.mlp_convs = nn.ModuleList(nn.Conv1d(before, after, 1) for before, after in pairs)
        self.mlp_bns = nn.ModuleList(nn.BatchNorm1d(after) for _, after in pairs)

    def forward(self, points: Tensor, center: Tensor, features: Tensor) -> Tensor:
        """(B, N, 3), (B, G, 3) and (B, G, F) -> (B, N, channels)."""
        batch, count, _ = points.shape
        mixed = interpolate(points, center, features)
        x = torch.cat([points, mixed], dim=-1).flatten(0, 1)  # (B N, 3 + F)
        for conv, norm in zip(list[Any](self.mlp_convs), self.mlp_bns, strict=True):
            x = F.relu(norm(linear(x, conv)))
        return x.unflatten(0, (batch, count))


def interpolate(points: Tensor, center: Tensor, features: Tensor) -> Tensor:
    """(B, N, F): average over the three nearest centres, by inverse squared distance."""
    count = points.shape[1]
    with torch.no_grad():
        ids = nearest(center, points, _NEIGHBOURS).flatten(1)  # (B, N 3)
        near = gather(center, ids).unflatten(1, (count, _NEIGHBOURS))
        weight = 1 / ((near - points.unsqueeze(2)).square().sum(-1) + _SMALLEST)  # (B, N, 3)
        weight = weight / weight.sum(-1, keepdim=True)
    taken = gather(features, ids).unflatten(1, (count, _NEIGHBOURS))  # (B, N, 3, F)
    return (taken * weight.unsqueeze(-1)).sum(2)


class PartHead(nn.Module):
    """Group features of several blocks and the object class -> part scores of every point."""

    def __init__(
        self, width: int, channels: Sequence[int], objects: int, parts: int, dropout: float
    ) -> None:
        super().__init__()
        self.objects, self.dropout = objects, dropout
        self.label_conv = nn.Sequential(
            nn.Conv1d(objects, _EMBEDDED, 1, bias=False),
            nn.BatchNorm1d(_EMBEDDED),
            nn.LeakyReLU(0.2),
        )
        self.propagation_0 = Propagation(width, channels)
        first, second = _HIDDEN
        self.convs1 = nn.Conv1d(channels[-1] + 2 * width + _EMBEDDED, first, 1)
        self.bns1 = nn.BatchNorm1d(first)
        self.convs2 = nn.Conv1d(first, second, 1)
        self.bns2 = nn.BatchNorm1d(second)
        self.convs3 = nn.Conv1d(second, parts, 1)

    def forward(
        self,
        points: Tensor,
        center: Tensor,
        features: Tensor,
        label: Tensor,
        noise: Noise | None = None,
    ) -> Tensor:
        """(B, N, K) log-probabilities.

        Args:
            points: (B, N, 3).
            center: (B, G, 3).
            features: (B, G, F).
            label: (B,) object classes.
            noise: keyed noise; needed while training with dropout.
        """
        batch, count, _ = points.shape
        local = self.propagation_0(points, center, features)  # (B, N, channels)
        embed, norm, activation = list[Any](self.label_conv)
        one_hot = F.one_hot(label, self.objects).to(features.dtype)
        known = activation(norm(F.linear(one_hot, embed.weight.squeeze(-1))))
        overall = torch.cat([features.amax(1), features.mean(1), known], dim=-1)  # (B, 2 F + 64)
        # Inputs shared by all points of a cloud are multiplied once per cloud.
        weight, width = self.convs1.weight.squeeze(-1), local.shape[-1]
        x = F.linear(local, weight[:, :width])
        x = x + F.linear(overall, weight[:, width:], self.convs1.bias).unsqueeze(1)
        x = F.relu(self.bns1(x.flatten(0, 1)))
        if self.training and self.dropout > 0:
            x = self._dropped(x.unflatten(0, (batch, count)), noise).flatten(0, 1)
        x = F.relu(self.bns2(linear(x, self.convs2)))
        return linear(x, self.convs3).unflatten(0, (batch, count)).log_softmax(-1)

    def _dropped(self, x: Tensor, noise: Noise | None) -> Tensor:
        if noise is None:
            raise ValueError("dropout > 0 needs keyed noise while training")
        uniform = noise.rows("dropout", x.shape[1] * x.shape[2]).view_as(x)
        return torch.where(uniform >= self.dropout, x / (1 - self.dropout), 0.0)
