"""Frozen encoder for sparse dictionaries of patch features, as ``mimsuite dictionary`` uses it.

Only the encoder, a run's or a teacher, is built here. :mod:`mimsuite.dictionaries` trains the
dictionaries on its cached features.

Letters: B batch, N patches, D width.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic import model_validator
from torch import Tensor

from mimsuite.batch import Batch
from mimsuite.config.keys.dictionaries import (
    DictionaryModelSection,
    DictionaryOptimSection,
    DictionaryScheduleSection,
    TargetSection,
)
from mimsuite.config.keys.section import EmptySection, Positive
from mimsuite.config.keys.shared import MethodCard, MethodSection, Recipe
from mimsuite.config.keys.teachers import check_teacher
from mimsuite.errors import UserError
from mimsuite.methods.base import Method
from mimsuite.methods.reader import FrozenReader
from mimsuite.models.teachers import build_teacher


class DictionaryMethodSection(MethodSection):
    """`method:` number of dictionaries, and contents of the concept sheet."""

    name: Literal["dictionary"]
    seeds: Positive = 2  # dictionaries to train, seeds from train.seed on; compared for stability
    concepts: Positive = 12  # codes on the concept sheet: those of highest energy
    examples: Positive = 6  # images per concept


class DictionaryRecipe(Recipe):
    """A recipe for a sparse dictionary."""

    card: ClassVar[MethodCard] = MethodCard("arXiv:2406.04093", "verified", ("step", "trajectory"))

    method: DictionaryMethodSection
    model: DictionaryModelSection
    mask: EmptySection = EmptySection()
    target: TargetSection
    optim: DictionaryOptimSection  # type: ignore[assignment]
    schedule: DictionaryScheduleSection  # type: ignore[assignment]

    @model_validator(mode="after")
    def _of_images(self) -> DictionaryRecipe:
        if self.recipe.modality != "image":
            raise ValueError("method.name dictionary is for images: set recipe.modality=image")
        if self.eval.layers is not None and len(self.eval.layers) != 1:
            raise ValueError("eval.layers: a dictionary reads one layer: list one, or set null")
        if self.model.teacher is not None:
            encoder = self.model.encoder
            check_teacher(self.model.teacher, encoder.grid, encoder.in_channels, "model.teacher")
        return self


class DictionaryReader(FrozenReader):
    """Patch features of the run's encoder, or of a teacher instead."""

    Recipe = DictionaryRecipe
    command = "mimsuite dictionary RUN --data SRC"

    def __init__(self, recipe: DictionaryRecipe) -> None:
        section = recipe.model
        self.teacher = None
        if section.teacher is None:
            super().__init__(recipe)
            return
        Method.__init__(self, recipe)
        self.teacher = build_teacher(
            section.teacher, section.encoder.grid, recipe.augment, "model.teacher"
        )

    @property
    def layer(self) -> int:
        """The block that is read, counted from 1; 0: the only map of a teacher without blocks."""
        depth = self.encoder.depth if self.teacher is None else self.teacher.depth
        layers = self.recipe.eval.layers
        layer: int = depth if layers is None else layers[0]
        if layer > depth:
            raise UserError(f"eval.layers [{layer}]: this encoder has blocks 1 to {depth}")
        return layer

    @torch.no_grad()
    def tokens(self, batch: Batch) -> Tensor:
        """(B, N, D) patch features of a normalised batch; the last block's include the norm."""
        layer = self.layer
        if self.teacher is None:
            return self.patches(batch, [layer])[layer]
        if layer == self.teacher.depth:
            return self.teacher.features(batch.image).tokens
        height, width = self.recipe.model.encoder.grid
        hidden = self.teacher.features(batch.image, hidden=[layer]).hidden[layer]
        return hidden[:, -height * width :]
