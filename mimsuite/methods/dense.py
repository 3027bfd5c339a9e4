"""Frozen encoder for linear heads on patch features, as ``mimsuite dense-probe`` uses it.

Only the encoder is built here. :mod:`mimsuite.evaluate.dense.probe` trains the heads, many at once,
on its cached features.

Letters: B batch, D width, (h, w) grid of patches.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

from pydantic import model_validator
from torch import Tensor

from mimsuite.batch import Batch
from mimsuite.config.keys.dense import (
    DenseDataSection,
    DenseModelSection,
    DenseOptimSection,
    DenseTargetSection,
)
from mimsuite.config.keys.section import EmptySection
from mimsuite.config.keys.shared import MethodCard, MethodSection, Recipe
from mimsuite.methods.reader import FrozenReader


class DenseMethodSection(MethodSection):
    """`method:` a dense probe has no keys of its own."""

    name: Literal["dense"]


class DenseRecipe(Recipe):
    """A recipe for a dense probe."""

    card: ClassVar[MethodCard] = MethodCard("arXiv:2304.07193", "experimental")

    method: DenseMethodSection
    model: DenseModelSection
    mask: EmptySection = EmptySection()
    target: DenseTargetSection
    data: DenseDataSection  # type: ignore[assignment]
    optim: DenseOptimSection  # type: ignore[assignment]

    @model_validator(mode="after")
    def _of_images(self) -> DenseRecipe:
        if self.recipe.modality != "image":
            raise ValueError("method.name dense is for images: set recipe.modality=image")
        return self


class DenseReader(FrozenReader):
    """A frozen encoder whose patch tokens are read as maps."""

    Recipe = DenseRecipe
    command = "mimsuite dense-probe RUN --data FOLDER"

    def maps(self, batch: Batch, layers: Sequence[int]) -> dict[int, Tensor]:
        """Feature maps (B, D, h, w) of these blocks, (B, 2 D, h, w) with class tokens; see
        :meth:`patches`."""
        model = self.recipe.model
        found = self.patches(batch, layers, classes=model.read == "patches+classes")
        return {
            layer: tokens.transpose(1, 2).unflatten(2, model.encoder.grid)
            for layer, tokens in found.items()
        }
