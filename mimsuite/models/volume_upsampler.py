"""Upsampler from the last stage of a volume encoder to a finer grid (NeRF-MAE, arXiv:2404.01300).

Letters: B batch, E width of the first stage, S voxels per side of the finer grid, p voxels per side
of a token.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from mimsuite.config.keys.volume import Swin3DSection
from mimsuite.models.features import Features
from mimsuite.models.volume_decoder import channels_first, instance_norm, unfold_voxels

_SLOPE = 0.2  # slope of the leaky ReLUs


class VolumeUpsampler(nn.Module):
    """Last stage of the encoder -> (B, 4, S, S, S) colour and opacity.

    Four convolutions, each followed by nearest-neighbour upsampling: to the sizes of the stages,
    then to S / p. A last convolution predicts the p ** 3 voxels of each point.
    """

    def __init__(self, encoder: Swin3DSection, widths: tuple[int, ...], resolution: int) -> None:
        super().__init__()
        self.patch = encoder.patch_size
        self.sides = [encoder.side // 4, encoder.side // 2, encoder.side, resolution // self.patch]
        ends = [8 * encoder.width, *widths]
        self.steps = nn.ModuleList(
            nn.Conv3d(before, after, 3, padding=1)
            for before, after in zip(ends[:-1], widths, strict=True)
        )
        self.out = nn.Conv3d(widths[-1], self.patch**3 * encoder.in_channels, 3, padding=1)

    def forward(self, features: Features) -> Tensor:
        x = channels_first(*features.maps[-1])  # (B, 8 E, R/8p, R/8p, R/8p)
        for step, side in zip(self.steps, self.sides, strict=True):
            x = F.leaky_relu(instance_norm(step(x)), _SLOPE)
            x = F.interpolate(x, size=(side, side, side), mode="nearest")
        return unfold_voxels(self.out(x), self.patch)
