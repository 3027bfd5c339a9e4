"""Frozen patch features under linear heads: what ``mimsuite dense-probe`` measures.

The encoder is all there is to build; the heads are trained on its cached features, many at once, by
:mod:`mimsuite.evaluate.dense.probe`.

Letters: B batch, N patches in a grid (h, w), C class tokens, D width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

import torch
from pydantic import model_validator
from torch import Tensor

from mimsuite.batch import Batch
from mimsuite.config.keys.dense import (
    DenseDataSection,
    DenseModelSection,
    DenseOptimSection,
    DenseTargetSection,
)
from mimsuite.config.keys.section import Nothing
from mimsuite.config.keys.shared import MethodCard, MethodSection, Recipe
from mimsuite.errors import UserError
from mimsuite.masking import TokenMask
from mimsuite.methods.base import Context, Method, Output
from mimsuite.models import build_encoder
from mimsuite.noise import Noise


class DenseMethodSection(MethodSection):
    """`method:` a dense probe has no keys of its own."""

    name: Literal["dense"]


class DenseRecipe(Recipe):
    """A recipe of a dense probe."""

    card: ClassVar[MethodCard] = MethodCard("arXiv:2304.07193", "experimental")

    method: DenseMethodSection
    model: DenseModelSection
    mask: Nothing = Nothing()
    target: DenseTargetSection
    data: DenseDataSection  # type: ignore[assignment]
    optim: DenseOptimSection  # type: ignore[assignment]

    @model_validator(mode="after")
    def _of_images(self) -> DenseRecipe:
        if self.recipe.modality != "image":
            raise ValueError("method.name dense is of images: set recipe.modality=image")
        return self


class DenseReader(Method):
    """An encoder, frozen, whose patch tokens are read as maps."""

    Recipe = DenseRecipe

    def __init__(self, recipe: DenseRecipe) -> None:
        super().__init__(recipe)
        self.encoder = build_encoder(recipe.model.encoder).requires_grad_(False).eval()

    def train(self, mode: bool = True) -> DenseReader:
        """It stays in eval mode."""
        super().train(False)
        return self

    @torch.no_grad()
    def maps(self, batch: Batch, layers: Sequence[int]) -> dict[int, Tensor]:
        """Patch features (B, D, h, w) behind each of these blocks, counted from 1.

        Those of the last carry the encoder's norm, those of earlier blocks are the plain output.
        """
        height, width = self.recipe.model.encoder.grid
        depth = self.encoder.depth
        features = self.encode(batch, layers=[layer for layer in layers if layer != depth])
        classes = features.cls.shape[1]
        found = {}
        for layer in layers:
            tokens = features.tokens if layer == depth else features.layers[layer][:, classes:]
            found[layer] = tokens.transpose(1, 2).unflatten(2, (height, width))  # (B, D, h, w)
        return found

    def forward(self, batch: Batch, masks: dict[str, TokenMask], ctx: Context) -> Output:
        """Nothing is learnt here.

        Raises:
            UserError: always.
        """
        raise UserError("a dense probe is run by mimsuite dense-probe RUN --data FOLDER")

    def mask(self, batch: Batch, noise: Noise, ctx: Context) -> dict[str, TokenMask]:
        """Nothing is masked."""
        return {}
