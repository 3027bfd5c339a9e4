"""Voxel classifier on the stages of a volume encoder (NeRF-MAE, arXiv:2404.01300).

It uses the pretraining decoder up to the resolution of the first stage, then a last upsampling with
a skip connection from the input.

Letters: B batch, E width of the first stage, R voxels per side, K classes.
"""

from __future__ import annotations

from torch import Tensor, nn

from mimsuite.config.keys.volume import Swin3DSection
from mimsuite.models.features import Features
from mimsuite.models.volume_decoder import ResidualConv, Up, channels_first


class VoxelUNet(nn.Module):
    """Stages of the encoder and grids (B, 4, R, R, R) -> (B, K, R, R, R) logits.

    ``up4``, ``up3`` and ``up2`` are the same as in
    :class:`~mimsuite.models.volume_decoder.VolumeDecoder`.
    """

    def __init__(self, encoder: Swin3DSection, classes: int) -> None:
        super().__init__()
        width = encoder.width
        self.up4 = Up(8 * width, 4 * width, 2, skip=True)
        self.up3 = Up(4 * width, 2 * width, 2, skip=True)
        self.up2 = Up(2 * width, width, 2, skip=True)
        self.input = ResidualConv(encoder.in_channels, width // 2)
        self.up1 = Up(width, width // 2, encoder.patch_size, skip=True)
        self.out = nn.Conv3d(width // 2, classes, 1)

    def forward(self, features: Features, grids: Tensor) -> Tensor:
        first, second, third, last = (channels_first(*stage) for stage in features.maps)
        x = self.up2(self.up3(self.up4(last, third), second), first)  # (B, E, R/p, R/p, R/p)
        logits: Tensor = self.out(self.up1(x, self.input(grids)))
        return logits
