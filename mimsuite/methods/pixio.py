"""Pixio: In Pursuit of Pixel Supervision for Visual Pre-training (Yang, Li et al.,
arXiv:2512.15715).

MAE with three changes: whole squares of patches are masked, so that a masked patch has fewer
visible neighbours; there are several class tokens; and the decoder is deep, so that the encoder
need not hold what is of use for pixels only. Positions of encoder and decoder are trained.

Target, loss and names of parameters are MAE's.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from mimsuite.config.keys.masks import SquareMaskSection
from mimsuite.config.keys.shared import MethodCard, MethodSection
from mimsuite.methods.mae import MAE, MAERecipe


class PixioSection(MethodSection):
    """`method:` Pixio has no keys of its own: model, mask and target say it all."""

    name: Literal["pixio"]


class PixioRecipe(MAERecipe):
    """A recipe for Pixio pretraining."""

    card: ClassVar[MethodCard] = MethodCard("arXiv:2512.15715", "faithful")

    method: PixioSection  # type: ignore[assignment]
    mask: SquareMaskSection  # type: ignore[assignment]


class Pixio(MAE):
    """Masked autoencoder with masked squares and several class tokens."""

    Recipe = PixioRecipe
