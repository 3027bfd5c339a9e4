"""Decoders from the stages of a volume encoder to voxels: NeRF-MAE's U-Net, and a light variant.

The published decoder, a UNETR-like U-Net, spends four fifths of its work at full resolution. The
light decoder ends at the first stage's tokens and predicts the voxels of each token by one linear
layer. It is five times cheaper per step but a different model, so a recipe must choose it
explicitly.

Letters: B batch, E width of the first stage, R voxels per side.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mimsuite.config.keys.volume import Swin3DSection, VolumeDecoderSection
from mimsuite.models.features import Features

_SLOPE = 0.01  # slope of the leaky ReLUs
_EPS = 1e-5  # epsilon of the instance norms, which have no affine parameters


class ResidualConv(nn.Module):
    """Two convolutions with instance norms, and a residual connection."""

    def __init__(self, width_in: int, width_out: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv3d(width_in, width_out, 3, padding=1)
        self.conv2 = nn.Conv3d(width_out, width_out, 3, padding=1)
        self.conv3 = nn.Conv3d(width_in, width_out, 1) if width_in != width_out else None

    def forward(self, x: Tensor) -> Tensor:
        """(B, width_in, ...) -> (B, width_out, ...) of the same size."""
        out = F.leaky_relu(instance_norm(self.conv1(x)), _SLOPE)
        out = instance_norm(self.conv2(out))
        return F.leaky_relu(
            out + (x if self.conv3 is None else instance_norm(self.conv3(x))), _SLOPE
        )


class Up(nn.Module):
    """A transposed convolution by ``factor``, an optional skip connection, a residual block."""

    def __init__(self, width_in: int, width_out: int, factor: int, skip: bool) -> None:
        super().__init__()
        self.transp_conv = nn.ConvTranspose3d(width_in, width_out, factor, stride=factor)
        self.conv_block = ResidualConv(2 * width_out if skip else width_out, width_out)

    def forward(self, x: Tensor, skip: Tensor | None = None) -> Tensor:
        x = self.transp_conv(x)
        return self.conv_block(x if skip is None else torch.cat([x, skip], dim=1))


class VolumeDecoder(nn.Module):
    """Stages of the encoder -> (B, 4, R, R, R): colour, and opacity before the sigmoid."""

    def __init__(self, section: VolumeDecoderSection, encoder: Swin3DSection) -> None:
        super().__init__()
        width, self.patch, channels = encoder.width, encoder.patch_size, encoder.in_channels
        self.up4 = Up(8 * width, 4 * width, 2, skip=True)
        self.up3 = Up(4 * width, 2 * width, 2, skip=True)
        self.up2 = Up(2 * width, width, 2, skip=True)
        self.light = section.kind == "light"
        if self.light:
            self.out: nn.Module = nn.Conv3d(width, self.patch**3 * channels, 1)
        else:
            self.up1 = Up(width, width // 2, self.patch, skip=False)
            self.out = nn.Conv3d(width // 2, channels, 1)

    def forward(self, features: Features) -> Tensor:
        first, second, third, last = (channels_first(*stage) for stage in features.maps)
        x = self.up2(self.up3(self.up4(last, third), second), first)  # (B, E, R/p, R/p, R/p)
        if not self.light:
            return self.out(self.up1(x))
        return unfold_voxels(self.out(x), self.patch)


def unfold_voxels(x: Tensor, p: int) -> Tensor:
    """Values per token (B, C p p p, X, Y, Z) -> values per voxel (B, C, X p, Y p, Z p)."""
    x = x.unflatten(1, (-1, p, p, p)).permute(0, 1, 5, 2, 6, 3, 7, 4)
    return x.flatten(6, 7).flatten(4, 5).flatten(2, 3)


def channels_first(tokens: Tensor, grid: tuple[int, ...]) -> Tensor:
    """(B, N, C) tokens of a stage -> (B, C, X, Y, Z)."""
    return tokens.transpose(1, 2).unflatten(2, grid)


def instance_norm(x: Tensor) -> Tensor:
    """Instance norm of (B, C, X, Y, Z) without affine parameters."""
    if x[0, 0].numel() == 1:  # torch refuses one voxel in training mode; the result is zero
        return x - x
    return F.instance_norm(x, eps=_EPS)
