"""Sections of point-cloud methods. Nothing here imports torch.

Values are those of the published models where every one of them agrees.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from mimsuite.config.keys.masks import PointMaskSection
from mimsuite.config.keys.section import (
    Dimension,
    DropPath,
    FirstBlocks,
    Fraction,
    Key,
    Positive,
    Range,
    Section,
)
from mimsuite.config.keys.shared import Recipe

Distance = Annotated[float, Field(ge=0.0)]


class PointTransformerSection(Section):
    """`model.encoder:` groups of points through a small PointNet, then a transformer."""

    kind: Literal["point-transformer"] = "point-transformer"
    # Centres of groups are found by farthest-point sampling, and take the points nearest to them
    points: Annotated[Positive, Key.SIZE | Key.TUNABLE] = 1024  # of a cloud, as the model sees it
    groups: Annotated[Positive, Key.SIZE | Key.TUNABLE] = 64  # tokens of a cloud
    group_size: Annotated[Positive, Key.TUNABLE] = 32  # nearest points
    # pointnet2: as the CUDA kernel of published models, which never picks points near the origin
    sampling: Annotated[Literal["pointnet2", "plain"], Key.FREE] = "pointnet2"
    tokenizer: tuple[Positive, Positive, Positive] = (128, 256, 512)  # widths inside the PointNet
    width: Dimension = 384
    depth: Dimension = 12
    heads: Dimension = 6
    mlp_ratio: Annotated[float, Field(gt=0.0)] = 4.0
    # What the position MLP reads: the coordinates of a centre, or their sin-cos code (PCP-MAE)
    positions: Literal["coordinates", "sincos"] = "coordinates"
    drop_path: DropPath = 0.0  # of the last block; grows linearly from 0 in the first
    norm_eps: Annotated[float, Field(gt=0.0)] = 1e-5

    @model_validator(mode="after")
    def _fits(self) -> PointTransformerSection:
        if self.width % self.heads:
            raise ValueError(f"heads {self.heads} does not divide width {self.width}")
        if self.positions == "sincos" and self.width % 6:
            raise ValueError(f"positions=sincos: 6 must divide width {self.width}")
        for key in ("groups", "group_size"):
            if getattr(self, key) > self.points:
                raise ValueError(f"{key} {getattr(self, key)} exceeds points {self.points}")
        return self


class PointDecoderSection(Section):
    """`model.decoder:` blocks of the encoder's width that rebuild the masked groups."""

    depth: Dimension = 4
    heads: Dimension = 6
    mlp_ratio: Annotated[float, Field(gt=0.0)] = 4.0
    drop_path: DropPath = 0.0  # of the last block; grows linearly from 0 in the first


class CenterHeadSection(Section):
    """Blocks of the encoder's width, then an MLP, that predict the centres of masked groups."""

    depth: Annotated[int, Field(ge=0), Key.SIZE] = 0
    heads: Dimension = 6
    mlp_ratio: Annotated[float, Field(gt=0.0)] = 4.0
    drop_path: DropPath = 0.0  # of the last block; grows linearly from 0 in the first


class PointAutoencoderSection(Section):
    """`model:` an encoder of the visible groups, and what rebuilds the others."""

    encoder: PointTransformerSection = PointTransformerSection()
    decoder: PointDecoderSection = PointDecoderSection()
    freeze: FirstBlocks = 0  # keep the embeddings and so many first blocks as they are

    @model_validator(mode="after")
    def _fits(self) -> PointAutoencoderSection:
        if self.encoder.width % self.decoder.heads:
            raise ValueError(
                f"decoder.heads {self.decoder.heads} does not divide encoder.width "
                f"{self.encoder.width}"
            )
        return self


class ChamferTargetSection(Section):
    """`target:` the points of each masked group, relative to its centre."""

    kind: Literal["chamfer"] = "chamfer"
    norm: Literal["l1", "l2"] = "l2"  # of a distance: Euclidean, or squared


class PointAugmentSection(Section):
    """`augment:` which points of a cloud are seen, and where; draws are keyed by sample."""

    # Of a larger cloud: any points, or any of the `pool` farthest (null: of those seen)
    subset: Literal["random", "farthest"] = "random"
    pool: Positive | None = None
    normalize: Literal["after", "before", "none"] = "after"  # the subset is taken
    scale: Range = (2 / 3, 3 / 2)  # of each axis; lengths grow by a factor drawn uniformly
    scale_axes: Literal["each", "together"] = "each"
    translate: Distance = 0.2  # largest shift along each axis
    rotate_y: bool = False  # by any angle about the upright axis
    rotate_last: bool = False  # behind scale and shift, as PCP-MAE does, not before them
    perturb: Distance = 0.0  # deviation of three small rotations, radians; cut at three of it
    jitter: Distance = 0.0  # deviation of each coordinate; cut at five of it
    dropout: Fraction = 0.0  # largest share of points that is replaced by the first one
    votes: Positive = 1  # views that a classifier is tested on, as in training; 1: evaluation's own

    @property
    def mean(self) -> tuple[float, ...]:
        """Of pictures of clouds: they are drawn in [0, 1]."""
        return (0.0,)

    @property
    def std(self) -> tuple[float, ...]:
        """Likewise."""
        return (1.0,)


class PointRecipe(Recipe):
    """Base of the recipes of point-cloud methods."""

    augment: PointAugmentSection = PointAugmentSection()  # type: ignore[assignment]

    @model_validator(mode="after")
    def _of_points(self) -> PointRecipe:
        if self.recipe.modality != "points":
            raise ValueError(
                f"method.name {self.method.name} takes point clouds: set recipe.modality=points"
            )
        return self


class PointPretrainRecipe(PointRecipe):
    """Base of the recipes that mask groups of points and rebuild them."""

    model: PointAutoencoderSection
    mask: PointMaskSection
    target: ChamferTargetSection

    @model_validator(mode="after")
    def _something_to_see_and_to_rebuild(self) -> PointPretrainRecipe:
        groups = self.model.encoder.groups
        visible = self.mask.visible(groups)
        if visible in (0, groups):
            raise ValueError(
                f"mask.ratio {self.mask.ratio} leaves {visible} of {groups} groups visible: at "
                f"least one must be visible and one masked"
            )
        return self
