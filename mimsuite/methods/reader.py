"""A frozen encoder that is only read, as probes of its patch features do.

Letters: B batch, N patches in a grid (h, w), C class tokens, D width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from mimsuite.batch import Batch
from mimsuite.config.keys.shared import Recipe
from mimsuite.errors import UserError
from mimsuite.masking import TokenMask
from mimsuite.methods.base import Context, Method, Output
from mimsuite.models import build_encoder
from mimsuite.noise import Noise


class FrozenReader(Method):
    """The encoder of ``model.encoder``, always in eval mode. Nothing is trained here.

    Attributes:
        command: what runs a recipe of it.
    """

    command: ClassVar[str]

    def __init__(self, recipe: Recipe) -> None:
        super().__init__(recipe)
        section: Any = recipe.model
        self.encoder = build_encoder(section.encoder).requires_grad_(False).eval()

    def train(self, mode: bool = True) -> FrozenReader:
        """It stays in eval mode."""
        super().train(False)
        return self

    @torch.no_grad()
    def patches(self, batch: Batch, layers: Sequence[int]) -> dict[int, Tensor]:
        """Patch features (B, N, D) behind each of these blocks, counted from 1.

        Those of the last carry the encoder's norm, those of earlier blocks are the plain output.
        """
        depth = self.encoder.depth
        features = self.encode(batch, layers=[layer for layer in layers if layer != depth])
        classes = features.cls.shape[1]
        return {
            layer: features.tokens if layer == depth else features.layers[layer][:, classes:]
            for layer in layers
        }

    def forward(self, batch: Batch, masks: dict[str, TokenMask], ctx: Context) -> Output:
        """Nothing is learnt here.

        Raises:
            UserError: always.
        """
        raise UserError(f"a recipe of this kind is run by {self.command}")

    def mask(self, batch: Batch, noise: Noise, ctx: Context) -> dict[str, TokenMask]:
        """Nothing is masked."""
        return {}
