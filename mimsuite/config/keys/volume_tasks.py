"""`model:` and `target:` of what is learnt of labelled radiance grids (NeRF-MAE, Irshad et al.,
arXiv:2404.01300, section 4). Torch-free."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from mimsuite.config.keys.section import Dimension, Fraction, Key, Nothing, Positive, Section
from mimsuite.config.keys.shared import Recipe
from mimsuite.config.keys.volume import GridAugmentSection, Swin3DSection


class GridRecipe(Recipe):
    """Base of recipes that learn from labelled grids; nothing is masked."""

    mask: Nothing = Nothing()
    augment: GridAugmentSection = GridAugmentSection()  # type: ignore[assignment]

    @model_validator(mode="after")
    def _of_grids(self) -> GridRecipe:
        if self.recipe.modality != "grids":
            raise ValueError(
                f"method.name {self.method.name} takes radiance grids: set recipe.modality=grids"
            )
        return self


# --- boxes --------------------------------------------------------------------------------------


class BoxHeadSection(Section):
    """The feature pyramid and the towers that all its levels share."""

    width: Dimension = 256  # channels of the pyramid and of the towers
    depth: Dimension = 4  # convolutions of each of the two towers
    groups: Dimension = 32  # of their group norms
    prior: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.01  # score of every point to begin with

    @model_validator(mode="after")
    def _divides(self) -> BoxHeadSection:
        if self.width % self.groups:
            raise ValueError(f"groups {self.groups} do not divide width {self.width}")
        return self


class ProposalSection(Section):
    """Which predicted boxes are kept."""

    per_level: Positive = 2500  # best of each level of the pyramid, before overlaps are looked at
    overlap: Fraction = 0.3  # a box that shares more with a better one is left out
    most: Positive = 2500  # boxes of a scene


class DetectorSection(Section):
    """`model:` an encoder, a feature pyramid and a head without anchors."""

    encoder: Swin3DSection = Swin3DSection()
    head: BoxHeadSection = BoxHeadSection()
    proposals: ProposalSection = ProposalSection()


class BoxTargetSection(Section):
    """`target:` boxes, each to be told by the points near its centre."""

    kind: Literal["boxes"] = "boxes"
    oriented: bool = True  # false: the upright boxes around them, of yaw 0
    most: Positive = 64  # boxes of a scene; one with more is refused
    # Voxels: a point of a level tells boxes whose farthest face is up to so far away; the last
    # level all larger ones
    reach: tuple[Positive, Positive, Positive] = (16, 32, 64)
    radius: Annotated[float, Field(gt=0.0, le=1.5)] = 1.5  # strides around a centre that count
    focal_alpha: Fraction = 0.25  # weight of points in boxes
    focal_gamma: Annotated[float, Field(ge=0.0)] = 2.0  # how much less easy points count

    @model_validator(mode="after")
    def _grows(self) -> BoxTargetSection:
        if sorted(set(self.reach)) != list(self.reach):
            raise ValueError(f"reach {list(self.reach)} must grow from level to level")
        return self


# --- classes of voxels --------------------------------------------------------------------------


class VoxelModelSection(Section):
    """`model:` an encoder and a U-Net that begins as the pretrained decoder where it has one."""

    encoder: Swin3DSection = Swin3DSection()


class VoxelTargetSection(Section):
    """`target:` the class of each voxel; 0 is nothing, and is neither learnt nor scored."""

    kind: Literal["voxel-labels"] = "voxel-labels"
    labels: Annotated[int, Field(ge=2, le=256)]  # with 0: 19 in Front3D, 21 in HM3D
    # One for each label, 0 for label 0; null: 1 / ln(1.02 + share), of what training begins with
    weights: tuple[Annotated[float, Field(ge=0.0)], ...] | None = None

    @model_validator(mode="after")
    def _one_each(self) -> VoxelTargetSection:
        if self.weights is not None and len(self.weights) != self.labels:
            raise ValueError(f"weights has {len(self.weights)} numbers for labels {self.labels}")
        return self


# --- finer grids --------------------------------------------------------------------------------

Widths = tuple[Positive, Positive, Positive, Positive]


class UpsamplerSection(Section):
    """`model:` an encoder and convolutions from its last stage to a finer grid."""

    encoder: Swin3DSection = Swin3DSection()
    widths: Annotated[Widths, Key.SIZE] = (512, 256, 128, 64)  # behind each convolution

    @model_validator(mode="after")
    def _room_for_norms(self) -> UpsamplerSection:
        if self.encoder.side < 16:
            raise ValueError(
                f"encoder.resolution {self.encoder.resolution} leaves one token in the last stage, "
                f"of which an instance norm makes nothing: 16 tokens a side or more are needed"
            )
        return self


class FinerTargetSection(Section):
    """`target:` colour of occupied voxels of the scene as it is stored, of which the model sees
    `model.encoder.resolution` voxels a side."""

    kind: Literal["super-resolution"] = "super-resolution"
    resolution: Dimension  # voxels a side: 256 and 384 as published
    occupied: Fraction = 0.01  # opacity from which a voxel counts
