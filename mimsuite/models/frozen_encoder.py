"""A frozen network as an encoder, for methods that train only what reads its tokens.

It has no parameters: the network is loaded from its own weights, and no checkpoint holds it.

Letters: B batch, N tokens, C class tokens, D width.
"""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import Tensor, nn

from mimsuite.batch import Batch
from mimsuite.config.keys.rae import FrozenEncoderSection
from mimsuite.config.keys.shared import AugmentSection
from mimsuite.models.encoder import Encoder
from mimsuite.models.features import Features
from mimsuite.models.teachers import build_teacher
from mimsuite.noise import Noise


class FrozenEncoder(Encoder):
    """Tokens of a frozen network; probes read what the decoder reads."""

    def __init__(self, section: FrozenEncoderSection, augment: AugmentSection) -> None:
        super().__init__(section)
        self.grid, self.width, self.depth = section.grid, section.width, section.depth
        self.norm = nn.Identity()
        plain = section.norm == "plain"
        self.network = build_teacher(
            section.network, section.grid, augment, "model.encoder.network", plain_norm=plain
        )

    def tokens(self, images: Tensor, keys: list[str] | None = None) -> Tensor:
        """(B, N, D) float32 of normalised images (B, C, H, W), without gradient.

        Args:
            keys: keys of training samples, if features may be cached.
        """
        return self.network.features(images, keys=keys).tokens

    def encode(
        self, batch: Batch, *, noise: Noise | None = None, layers: Collection[int] = ()
    ) -> Features:
        """Features of whole images."""
        blocks = self.section.network.blocks
        found = self.network.features(batch.image, hidden=layers if blocks else ())
        tokens = found.tokens
        cls = tokens[:, :0] if found.cls is None else found.cls[:, None]
        pools = ("mean", "max") if found.cls is None else ("cls", "mean")
        layer = torch.cat([cls, tokens], dim=1)
        hidden = found.hidden if blocks else dict.fromkeys(layers, layer)
        return Features(cls, tokens, hidden, pools=pools)

    def sample(self) -> tuple[str, tuple[int, ...]]:
        rows, columns = (side * self.section.patch_size for side in self.grid)
        return "image", (self.section.in_channels, rows, columns)

    def layer_id(self, name: str) -> int:
        return self.depth + 1
