"""Feature pyramid over the stages of a volume encoder, and an anchor-free head on each level.

NeRF-RPN (Hu et al., arXiv:2211.11646): FPN (Lin et al., arXiv:1612.03144) and FCOS (Tian et al.,
arXiv:1904.01355) in three dimensions.

Letters: B batch, N points of a level, F width of the pyramid, (x, y, z) grid of a level.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mimsuite.config.keys.volume_tasks import BoxHeadSection
from mimsuite.models.features import Features

_STD = 0.01  # initial std of the head's convolutions


class VolumePyramid(nn.Module):
    """Stages of widths E, 2E, 4E, 8E -> one map of F channels per stage.

    Coarser maps are upsampled and added to finer ones.
    """

    def __init__(self, width: int, channels: int, stages: int = 4) -> None:
        super().__init__()
        self.lateral = nn.ModuleList(nn.Conv3d(width << i, channels, 1) for i in range(stages))
        self.out = nn.ModuleList(nn.Conv3d(channels, channels, 3, padding=1) for _ in range(stages))
        for module in (*self.lateral, *self.out):
            assert isinstance(module, nn.Conv3d)
            nn.init.kaiming_uniform_(module.weight, a=1)
            assert module.bias is not None
            nn.init.zeros_(module.bias)

    def forward(self, features: Features) -> list[Tensor]:
        """(B, F, x, y, z) of each level, finest first."""
        maps = [tokens.transpose(1, 2).unflatten(2, grid) for tokens, grid in features.maps]
        sums = [lateral(m) for lateral, m in zip(self.lateral, maps, strict=True)]
        for level in range(len(sums) - 1, 0, -1):
            coarse = F.interpolate(sums[level], size=sums[level - 1].shape[2:], mode="nearest")
            sums[level - 1] = sums[level - 1] + coarse
        return [out(summed) for out, summed in zip(self.out, sums, strict=True)]


@dataclass(frozen=True)
class PointPredictions:
    """Predictions for the points of one level, in the order of (x, y, z), z fastest.

    Attributes:
        score: (B, N) logit of being in a box.
        centre: (B, N) logit of the centreness.
        code: (B, N, 6) distances to the box's faces in voxels, >= 0; for rotated boxes (B, N, 8),
            followed by two offsets, see :mod:`mimsuite.targets.box_code`.
    """

    score: Tensor
    centre: Tensor
    code: Tensor


class BoxHead(nn.Module):
    """Two towers shared by all levels; distances are in strides, times a trained level scale."""

    def __init__(self, section: BoxHeadSection, *, oriented: bool, levels: int = 4) -> None:
        super().__init__()
        width = section.width
        self.score_tower = _tower(section)
        self.box_tower = _tower(section)
        self.score = nn.Conv3d(width, 1, 3, padding=1)
        self.centre = nn.Conv3d(width, 1, 3, padding=1)
        self.box = nn.Conv3d(width, 8 if oriented else 6, 3, padding=1)
        self.scales = nn.Parameter(torch.ones(levels))
        for module in self.modules():
            if isinstance(module, nn.Conv3d):
                nn.init.normal_(module.weight, std=_STD)
                assert module.bias is not None
                nn.init.zeros_(module.bias)
        assert self.score.bias is not None
        nn.init.constant_(self.score.bias, -math.log(1 / section.prior - 1))

    def forward(self, maps: list[Tensor], strides: list[int]) -> list[PointPredictions]:
        """Predictions of each level, in float32."""
        predictions = []
        for level, (x, stride) in enumerate(zip(maps, strides, strict=True)):
            boxes = self.box_tower(x)
            code = self.box(boxes).float() * self.scales[level]
            code = code.flatten(2).transpose(1, 2)  # (B, N, 6 or 8)
            code = torch.cat([code[..., :6].relu() * stride, code[..., 6:]], dim=-1)
            score, centre = self.score(self.score_tower(x)), self.centre(boxes)
            logits = (score.float().flatten(1), centre.float().flatten(1))
            predictions.append(PointPredictions(*logits, code))
        return predictions


def _tower(section: BoxHeadSection) -> nn.Sequential:
    width, layers = section.width, []
    for _ in range(section.depth):
        convolution = nn.Conv3d(width, width, 3, padding=1)
        layers += [convolution, nn.GroupNorm(section.groups, width), nn.ReLU()]
    return nn.Sequential(*layers)
