"""The decoder of data2vec 2.0 (Baevski et al., arXiv:2212.07525, section 3.3): convolutions over
the grid of tokens, in which noise stands in for the hidden ones.

Letters: B batch, V visible tokens, M masked ones, D width of tokens, E channels of the decoder.
"""

from __future__ import annotations

from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn

from mimsuite.config.keys.encoders import ConvDecoderSection
from mimsuite.masking import TokenMask

_EPS = 1e-5  # epsilon of the norms, which have no parameters


class ConvDecoder(nn.Module):
    """Latents of visible tokens -> predictions of the masked ones.

    Args:
        width: D.
    """

    def __init__(self, section: ConvDecoderSection, width: int) -> None:
        super().__init__()
        widths = [width, *[section.width] * section.depth]
        self.blocks = nn.ModuleList(
            ConvLayer(before, after, section.kernel, section.groups)
            for before, after in pairwise(widths)
        )
        self.proj = nn.Linear(section.width, width)

    def forward(self, visible: Tensor, mask: TokenMask, fill: Tensor) -> Tensor:
        """(B, V, D) latents, (B, M, D) numbers in place of the others -> (B, M, D)."""
        x = mask.assemble(visible, fill).transpose(1, 2).unflatten(2, mask.grid)  # (B, D, H, W)
        for block in self.blocks:
            x = block(x)
        found: Tensor = self.proj(mask.gather(x.flatten(2).transpose(1, 2), "masked"))
        return found


class ConvLayer(nn.Module):
    """Convolution, norm over channels, GELU; the input is added where it has as many channels."""

    def __init__(self, before: int, after: int, kernel: int, groups: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(before, after, kernel, padding=kernel // 2, groups=groups)

    def forward(self, x: Tensor) -> Tensor:
        """(B, before, H, W) -> (B, after, H, W)."""
        # An even kernel makes one row and one column more.
        y = self.conv(x)[:, :, : x.shape[2], : x.shape[3]].movedim(1, -1)
        y = F.gelu(F.layer_norm(y, y.shape[-1:], eps=_EPS)).movedim(-1, 1)
        return y + x if y.shape == x.shape else y
