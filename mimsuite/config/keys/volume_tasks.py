"""`model:` and `target:` of tasks on labelled radiance grids (NeRF-MAE, Irshad et al.,
arXiv:2404.01300, section 4). Torch-free."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from mimsuite.config.keys.section import Dimension, EmptySection, Fraction, Key, Positive, Section
from mimsuite.config.keys.shared import Recipe
from mimsuite.config.keys.volume import GridAugmentSection, Swin3DSection


class GridRecipe(Recipe):
    """Base of recipes that learn from labelled grids, without masking."""

    mask: EmptySection = EmptySection()
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
    """The feature pyramid, and the two towers that its levels share."""

    width: Dimension = 256  # channels of the pyramid and of the towers
    depth: Dimension = 4  # convolutions of each of the two towers
    groups: Dimension = 32  # groups of the towers' group norms
    prior: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.01  # initial score of every point

    @model_validator(mode="after")
    def _divides(self) -> BoxHeadSection:
        if self.width % self.groups:
            raise ValueError(f"groups {self.groups} do not divide width {self.width}")
        return self


class ProposalSection(Section):
    """Selection of predicted boxes."""

    per_level: Positive = 2500  # best boxes kept per pyramid level, before overlaps are removed
    overlap: Fraction = 0.3  # drop a box whose IoU with a better one is above this
    most: Positive = 2500  # largest number of boxes per scene


class DetectorSection(Section):
    """`model:` an encoder, a feature pyramid and an anchor-free head."""

    encoder: Swin3DSection = Swin3DSection()
    head: BoxHeadSection = BoxHeadSection()
    proposals: ProposalSection = ProposalSection()


class BoxTargetSection(Section):
    """`target:` boxes, each predicted by the pyramid points near its centre."""

    kind: Literal["boxes"] = "boxes"
    oriented: bool = True  # false: predict their bounding boxes of yaw 0
    most: Positive = 64  # largest number of boxes per scene; scenes with more are refused
    # Largest distance, in voxels, from a point to the farthest face of its box, per pyramid level;
    # the last level takes all larger boxes
    reach: tuple[Positive, Positive, Positive] = (16, 32, 64)
    radius: Annotated[float, Field(gt=0.0, le=1.5)] = 1.5  # positive points: strides from a centre
    focal_alpha: Fraction = 0.25  # focal loss: weight of positive points
    focal_gamma: Annotated[float, Field(ge=0.0)] = 2.0  # focal loss: down-weights easy points

    @model_validator(mode="after")
    def _grows(self) -> BoxTargetSection:
        if sorted(set(self.reach)) != list(self.reach):
            raise ValueError(f"reach {list(self.reach)} must grow from level to level")
        return self


# --- classes of voxels --------------------------------------------------------------------------


class VoxelModelSection(Section):
    """`model:` an encoder and a U-Net, initialised from the pretrained decoder if there is one."""

    encoder: Swin3DSection = Swin3DSection()


class VoxelTargetSection(Section):
    """`target:` the class of each voxel; class 0 is empty and is neither learnt nor scored."""

    kind: Literal["voxel-labels"] = "voxel-labels"
    labels: Annotated[int, Field(ge=2, le=256)]  # classes, 0 included: Front3D 19, HM3D 21
    # Loss weight of each class, 0 for class 0; null: 1 / ln(1.02 + share), with shares counted on
    # the first training samples
    weights: tuple[Annotated[float, Field(ge=0.0)], ...] | None = None

    @model_validator(mode="after")
    def _one_each(self) -> VoxelTargetSection:
        if self.weights is not None and len(self.weights) != self.labels:
            raise ValueError(f"weights has {len(self.weights)} numbers for labels {self.labels}")
        return self


# --- finer grids --------------------------------------------------------------------------------

Widths = tuple[Positive, Positive, Positive, Positive]


class UpsamplerSection(Section):
    """`model:` an encoder and convolutions that upsample its last stage to a finer grid."""

    encoder: Swin3DSection = Swin3DSection()
    widths: Annotated[Widths, Key.SIZE] = (512, 256, 128, 64)  # channels after each convolution

    @model_validator(mode="after")
    def _room_for_norms(self) -> UpsamplerSection:
        if self.encoder.side < 16:
            raise ValueError(
                f"encoder.resolution {self.encoder.resolution} leaves one token in the last stage, "
                f"too few for an instance norm: 16 tokens along a side or more are needed"
            )
        return self


class FinerTargetSection(Section):
    """`target:` colour of the occupied voxels at `resolution`; the model sees the scene at
    `model.encoder.resolution`."""

    kind: Literal["super-resolution"] = "super-resolution"
    resolution: Dimension  # voxels along a side; published: 256 and 384
    occupied: Fraction = 0.01  # lowest opacity of an occupied voxel
