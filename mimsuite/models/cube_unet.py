"""Decoder of voxel classes on a plain transformer of cubes (UNETR, Hatamizadeh et al.,
arXiv:2103.10504): hidden states of some blocks are the skip connections of a U-Net.

Letters: B batch, N cubes, D width, p voxels a side of a cube, K classes, L = log2(p) halvings.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from mimsuite.config.keys.scan_tasks import ScanSegmentSection
from mimsuite.models.features import Features
from mimsuite.models.volume_decoder import ResidualConv, Up, channels_first


class CubeUNet(nn.Module):
    """Hidden states (B, N, D) and scans (B, C, X, Y, Z) -> (B, K, X, Y, Z) logits.

    Args:
        section: of the whole model.
        classes: K.

    Attributes:
        blocks: numbers of the blocks whose outputs are read beside the last.
    """

    def __init__(self, section: ScanSegmentSection, classes: int) -> None:
        super().__init__()
        encoder, width = section.encoder, section.decoder.width
        self.blocks, halvings = section.read, section.halvings
        self.input = ResidualConv(encoder.in_channels, width)
        # From fine to coarse: the output of each block, enlarged to its level of the U-Net.
        self.skips = nn.ModuleList(
            _Enlarge(encoder.width, width << level, halvings - level)
            for level in range(1, halvings)
        )
        widths = [width << level for level in range(halvings)]
        self.ups = nn.ModuleList(
            Up(below, here, 2, skip=True)
            for here, below in zip(widths, [*widths[1:], encoder.width], strict=True)
        )
        self.out = nn.Conv3d(width, classes, 1)

    def forward(self, features: Features, scans: Tensor, grid: Sequence[int]) -> Tensor:
        """
        Args:
            features: with the outputs of ``blocks`` in ``layers``.
            grid: cubes along each axis.
        """
        shape = tuple(grid)
        skips = [self.input(scans)]
        for block, enlarge in zip(self.blocks, self.skips, strict=True):
            skips.append(enlarge(channels_first(features.layers[block], shape)))
        x = channels_first(features.tokens, shape)  # (B, D, X/p, Y/p, Z/p)
        for up, skip in zip(reversed(self.ups), reversed(skips), strict=True):
            x = up(x, skip)
        logits: Tensor = self.out(x)
        return logits


class _Enlarge(nn.Sequential):
    """Doubles the resolution ``times`` times, each by a transposed convolution; a residual block
    follows each but the first."""

    def __init__(self, width_in: int, width_out: int, times: int) -> None:
        parts: list[nn.Module] = [nn.ConvTranspose3d(width_in, width_out, 2, stride=2)]
        for _ in range(times - 1):
            parts.append(nn.ConvTranspose3d(width_out, width_out, 2, stride=2))
            parts.append(ResidualConv(width_out, width_out))
        super().__init__(*parts)
