"""A frozen encoder for probes of its patch features.

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


class FrozenReader(Method):
    """The encoder of ``model.encoder``, always in eval mode and never trained.

    Attributes:
        command: the command that runs its recipes.
    """

    command: ClassVar[str]

    def __init__(self, recipe: Recipe) -> None:
        super().__init__(recipe)
        section: Any = recipe.model
        self.encoder = build_encoder(section.encoder).requires_grad_(False).eval()

    def train(self, mode: bool = True) -> FrozenReader:
        """Stay in eval mode."""
        super().train(False)
        return self

    @torch.no_grad()
    def patches(self, batch: Batch, layers: Sequence[int]) -> dict[int, Tensor]:
        """Patch features (B, N, D) after each of these blocks, counted from 1.

        The last block's features include the encoder's final norm; earlier ones are plain outputs.
        """
        depth = self.encoder.depth
        features = self.encode(batch, layers=[layer for layer in layers if layer != depth])
        classes = features.cls.shape[1]
        return {
            layer: features.tokens if layer == depth else features.layers[layer][:, classes:]
            for layer in layers
        }

    def forward(self, batch: Batch, masks: dict[str, TokenMask], ctx: Context) -> Output:
        """Not supported: the encoder is not trained.

        Raises:
            UserError: always.
        """
        raise UserError(f"run this kind of recipe by {self.command}")
