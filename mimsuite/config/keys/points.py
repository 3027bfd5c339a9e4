"""Sections of point-cloud methods. Nothing here imports torch.

A default is the value that all published models share.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from mimsuite.config.keys.masks import PointMaskSection, require_both
from mimsuite.config.keys.section import (
    Dimension,
    DropPath,
    FirstBlocks,
    Fraction,
    Key,
    Positive,
    Range,
    Section,
    require_divides,
)
from mimsuite.config.keys.shared import Recipe

Distance = Annotated[float, Field(ge=0.0)]


class PointTransformerSection(Section):
    """`model.encoder:` a small PointNet embeds groups of points, then a transformer."""

    kind: Literal["point-transformer"] = "point-transformer"
    # Farthest-point sampling picks the group centres; a group is the points nearest to its centre
    points: Annotated[Positive, Key.SIZE | Key.TUNABLE] = 1024  # points per cloud, model input
    groups: Annotated[Positive, Key.SIZE | Key.TUNABLE] = 64  # groups, hence tokens, per cloud
    group_size: Annotated[Positive, Key.TUNABLE] = 32  # points per group
    # pointnet2: like the CUDA kernel of published models, which never picks points near the origin
    sampling: Annotated[Literal["pointnet2", "plain"], Key.FREE] = "pointnet2"
    tokenizer: tuple[Positive, Positive, Positive] = (128, 256, 512)  # widths inside the PointNet
    width: Dimension = 384
    depth: Dimension = 12
    heads: Dimension = 6
    mlp_ratio: Annotated[float, Field(gt=0.0)] = 4.0
    # Input of the position MLP: the coordinates of a centre, or their sin-cos code (PCP-MAE)
    positions: Literal["coordinates", "sincos"] = "coordinates"
    drop_path: DropPath = 0.0  # rate in the last block; rises linearly from 0 in the first
    norm_eps: Annotated[float, Field(gt=0.0)] = 1e-5

    @model_validator(mode="after")
    def _fits(self) -> PointTransformerSection:
        require_divides("heads", self.heads, "width", self.width)
        if self.positions == "sincos" and self.width % 6:
            raise ValueError(f"positions=sincos: 6 must divide width {self.width}")
        for key in ("groups", "group_size"):
            if getattr(self, key) > self.points:
                raise ValueError(f"{key} {getattr(self, key)} exceeds points {self.points}")
        return self


class PointDecoderSection(Section):
    """`model.decoder:` blocks of the encoder's width that reconstruct the masked groups."""

    depth: Dimension = 4
    heads: Dimension = 6
    mlp_ratio: Annotated[float, Field(gt=0.0)] = 4.0
    drop_path: DropPath = 0.0  # rate in the last block; rises linearly from 0 in the first


class CenterHeadSection(Section):
    """Blocks of the encoder's width, then an MLP, to predict the centres of masked groups."""

    depth: Annotated[int, Field(ge=0), Key.SIZE] = 0
    heads: Dimension = 6
    mlp_ratio: Annotated[float, Field(gt=0.0)] = 4.0
    drop_path: DropPath = 0.0  # rate in the last block; rises linearly from 0 in the first


class PointAutoencoderSection(Section):
    """`model:` an encoder of the visible groups and a decoder of the masked groups."""

    encoder: PointTransformerSection = PointTransformerSection()
    decoder: PointDecoderSection = PointDecoderSection()
    freeze: FirstBlocks = 0  # freeze the embeddings and this many first blocks; 0: train all

    @model_validator(mode="after")
    def _fits(self) -> PointAutoencoderSection:
        require_divides("decoder.heads", self.decoder.heads, "encoder.width", self.encoder.width)
        return self


class ChamferTargetSection(Section):
    """`target:` the points of each masked group, relative to its centre."""

    kind: Literal["chamfer"] = "chamfer"
    norm: Literal["l1", "l2"] = "l2"  # distance of two points: l1 Euclidean, l2 squared


class PointAugmentSection(Section):
    """`augment:` subset and transformation of a cloud's points; draws are keyed by sample."""

    # Subset of a larger cloud: random points, or random ones of `pool` farthest-sampled points
    subset: Literal["random", "farthest"] = "random"
    pool: Positive | None = None  # null: the number of points the model sees
    normalize: Literal["after", "before", "none"] = "after"  # before or after taking the subset
    scale: Range = (2 / 3, 3 / 2)  # scale factor, drawn uniformly
    scale_axes: Literal["each", "together"] = "each"  # one factor per axis, or one for all
    translate: Distance = 0.2  # largest shift along each axis
    rotate_y: bool = False  # rotate by a random angle about the upright axis
    rotate_last: bool = False  # rotate after scale and shift, as PCP-MAE does, not before
    perturb: Distance = 0.0  # deviation of three small rotations, radians; clipped at 3 deviations
    jitter: Distance = 0.0  # deviation of noise on each coordinate; clipped at 5 deviations
    dropout: Fraction = 0.0  # largest share of points that are replaced by the first one
    votes: Positive = 1  # training views averaged per test sample; 1: one evaluation view

    @property
    def mean(self) -> tuple[float, ...]:
        """Mean 0: pictures of clouds are drawn in [0, 1]."""
        return (0.0,)

    @property
    def std(self) -> tuple[float, ...]:
        """Deviation 1: pictures of clouds are drawn in [0, 1]."""
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
    """Base of recipes that mask groups of points and reconstruct them."""

    model: PointAutoencoderSection
    mask: PointMaskSection
    target: ChamferTargetSection

    @model_validator(mode="after")
    def _something_to_see_and_to_rebuild(self) -> PointPretrainRecipe:
        groups = self.model.encoder.groups
        visible = self.mask.visible(groups)
        require_both(f"mask.ratio {self.mask.ratio}", visible, groups, "groups")
        return self
