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
    def patches(
        self, batch: Batch, layers: Sequence[int], *, classes: bool = False
    ) -> dict[int, Tensor]:
        """Patch features (B, N, D) after each of these blocks, counted from 1.

        The last block's features include the encoder's final norm; earlier ones are plain outputs.

        Args:
            classes: append the mean of the block's class tokens to each patch, (B, N, 2 D).

        Raises:
            UserError: ``classes`` of an encoder without class tokens.
        """
        depth = self.encoder.depth
        features = self.encode(batch, layers=[layer for layer in layers if layer != depth])
        count = features.cls.shape[1]
        if classes and not count:
            raise UserError("this encoder has no class tokens: set model.read=patches")
        found = {}
        for layer in layers:
            block = features.layers.get(layer)
            cls, tokens = (
                (features.cls, features.tokens)
                if block is None
                else (block[:, :count], block[:, count:])
            )
            if classes:
                mean = cls.mean(dim=1, keepdim=True).expand_as(tokens)
                tokens = torch.cat([tokens, mean], dim=2)
            found[layer] = tokens
        return found

    def forward(self, batch: Batch, masks: dict[str, TokenMask], ctx: Context) -> Output:
        """Not supported: the encoder is not trained.

        Raises:
            UserError: always.
        """
        raise UserError(f"run this kind of recipe by {self.command}")
