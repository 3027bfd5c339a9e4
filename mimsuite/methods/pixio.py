"""Pixio: In Pursuit of Pixel Supervision for Visual Pre-training (Yang, Li et al.,
arXiv:2512.15715).

MAE with three changes. Whole squares of patches are masked, so a masked patch has fewer visible
neighbours. There are several class tokens. The decoder is deep, so the encoder need not store
details that matter only for pixels. Positions of encoder and decoder are trained.

Target, loss and parameter names are MAE's.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from mimsuite.config.keys.masks import SquareMaskSection
from mimsuite.config.keys.shared import MethodCard, MethodSection
from mimsuite.methods.mae import MAE, MAERecipe


class PixioSection(MethodSection):
    """`method:` Pixio has no keys of its own."""

    name: Literal["pixio"]


class PixioRecipe(MAERecipe):
    """A recipe for Pixio pretraining."""

    card: ClassVar[MethodCard] = MethodCard("arXiv:2512.15715", "faithful")

    method: PixioSection  # type: ignore[assignment]
    mask: SquareMaskSection  # type: ignore[assignment]


class Pixio(MAE):
    """Masked autoencoder with masked squares and several class tokens."""

    Recipe = PixioRecipe
