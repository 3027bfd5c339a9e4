"""What all encoders of clips have: tubelets, and the call of every probe.

Letters: B batch, N tubelets, V visible ones, P = t*p*p*C pixels of a tubelet, D width.
"""

from __future__ import annotations

from collections.abc import Collection

import torch.nn.functional as F
from torch import Tensor, nn

from mimsuite.batch import Batch
from mimsuite.config.keys.video import ClipEncoderSection
from mimsuite.models.encoder import Encoder
from mimsuite.models.features import Features
from mimsuite.noise import Noise
from mimsuite.tokens import tubelets


class TubeletEmbed(nn.Module):
    """Linear embedding of tubelet vectors.

    The weight is kept as the published convolution kernel (D, C, t, p, p); a linear map of the
    gathered tubelets is the same function, computed for visible ones only.
    """

    def __init__(self, channels: int, tubelet: int, patch: int, width: int) -> None:
        super().__init__()
        size = (tubelet, patch, patch)
        self.proj = nn.Conv3d(channels, width, kernel_size=size, stride=size)

    def forward(self, vectors: Tensor) -> Tensor:
        """(B, V, P) tubelet vectors, channel fastest -> (B, V, D)."""
        weight = self.proj.weight.permute(0, 2, 3, 4, 1).flatten(1)  # (D, t*p*p*C)
        return F.linear(vectors, weight, self.proj.bias)


class ClipEncoder(Encoder):
    """Base of encoders of tubelets, called as ``encoder(vectors, ids)`` with (B, V, P) tubelet
    vectors and their (B, V) ids, ``None`` = all.

    Attributes:
        grid: tokens along time, per column and per row at the trained size.
        view: what it reads of a batch.
    """

    view = "clip"

    def __init__(self, section: ClipEncoderSection) -> None:
        super().__init__(section)
        self.grid, self.width, self.depth = section.grid, section.width, section.depth

    def tubelets(self, clips: Tensor, ids: Tensor | None = None) -> Tensor:
        """Tubelet vectors of (B, C, T, H, W) clips, all (B, N, P) or those of ``ids``."""
        return tubelets(clips, self.section.tubelet, self.section.patch_size, ids)

    def encode(
        self, batch: Batch, *, noise: Noise | None = None, layers: Collection[int] = ()
    ) -> Features:
        """The unmasked call of every probe: all tubelets of the view, of any size."""
        clips = batch.views[self.view]
        frames, height, width = clips.shape[2:] if clips.ndim == 5 else (1, *clips.shape[2:])
        grid = self.section.grid_of((frames, height, width))
        features: Features = self(self.tubelets(clips), noise=noise, layers=layers, grid=grid)
        return features

    def sample(self) -> tuple[str, tuple[int, ...]]:
        return self.view, (self.section.in_channels, *self.section.size)
