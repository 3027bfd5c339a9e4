"""MAE on cubes of medical scans (SelfMedMAE, Zhou et al., arXiv:2203.05573, after He et al.,
arXiv:2111.06377).

A random quarter of the cubes of a crop is encoded; a small decoder sees their latents, and a mask
token in every other place, and rebuilds the voxels of the hidden cubes.

Unlike MAE there is no class token, and keys of attention have no bias, which changes no softmax.

Letters: B batch, N cubes, V visible, M masked, P = p*p*p*C voxels of a cube.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import model_validator
from torch import Tensor

from mimsuite.config.keys.masks import RandomMaskSection, require_both
from mimsuite.config.keys.scans import (
    CubeAutoencoderSection,
    CubeTargetSection,
    ScanAugmentSection,
    ScanDataSection,
)
from mimsuite.config.keys.shared import MethodCard, MethodSection, Recipe
from mimsuite.methods.tubelet_mae import TubeletMAE
from mimsuite.models import CubeViT
from mimsuite.pictures.volumes import slices


class MAE3DSection(MethodSection):
    """`method:` MAE3D has no keys of its own: model, mask and target say it all."""

    name: Literal["mae3d"]


class MAE3DRecipe(Recipe):
    """A recipe for masked pretraining on scans."""

    card: ClassVar[MethodCard] = MethodCard("arXiv:2203.05573", "experimental", ())

    method: MAE3DSection
    model: CubeAutoencoderSection
    mask: RandomMaskSection
    target: CubeTargetSection
    data: ScanDataSection = ScanDataSection()
    augment: ScanAugmentSection  # type: ignore[assignment]

    @model_validator(mode="after")
    def _something_to_see_and_to_rebuild(self) -> MAE3DRecipe:
        x, y, z = self.model.encoder.grid
        visible = self.mask.visible(x * y * z)
        require_both(f"mask.ratio {self.mask.ratio}", visible, x * y * z, "cubes")
        return self

    @model_validator(mode="after")
    def _turned_crops_keep_their_shape(self) -> MAE3DRecipe:
        self.augment.require_turnable(self.model.encoder.size)
        return self


class MAE3D(TubeletMAE):
    """Masked autoencoder on cubes."""

    Recipe = MAE3DRecipe
    what, unit = "voxels", "cube"
    encoder: CubeViT

    def __init__(self, recipe: MAE3DRecipe) -> None:
        super().__init__(recipe, CubeViT(recipe.model.encoder), table=CubeViT.positions)

    def drawn(self, inputs: Tensor) -> Tensor:
        """Three slices of each crop."""
        return slices(inputs)
