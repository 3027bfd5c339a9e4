"""NeRF-MAE: Masked AutoEncoders for Self-Supervised 3D Representation Learning for Neural Radiance
Fields (Irshad et al., arXiv:2404.01300).

A radiance field is sampled on a grid of colour and opacity. Cubes of tokens are replaced by a mask
token. A 3-D Swin transformer and a U-Net reconstruct the colour of occupied voxels and the opacity
of masked voxels.

Letters: B batch, R voxels along a side, (X, Y, Z) tokens along the axes.
"""

from __future__ import annotations

import re
from typing import ClassVar, Literal

import torch
from pydantic import model_validator
from torch import Tensor

from mimsuite.batch import Batch
from mimsuite.config.keys.shared import MethodCard, MethodSection, Recipe
from mimsuite.config.keys.volume import (
    GridAugmentSection,
    RadianceTargetSection,
    VolumeMaskSection,
    VolumeModelSection,
)
from mimsuite.masking import TokenMask
from mimsuite.methods.base import Context, Output, Panel
from mimsuite.methods.volume_mae import VolumeMAE
from mimsuite.pictures.volumes import march
from mimsuite.targets.radiance import RadianceTarget, valid_voxels, voxels_of


class NeRFMAESection(MethodSection):
    """`method:` NeRF-MAE has no keys of its own."""

    name: Literal["nerf-mae"]


class NeRFMAERecipe(Recipe):
    """A recipe for NeRF-MAE pretraining."""

    card: ClassVar[MethodCard] = MethodCard("arXiv:2404.01300", "verified", ("step",))

    method: NeRFMAESection
    model: VolumeModelSection
    mask: VolumeMaskSection
    target: RadianceTargetSection
    augment: GridAugmentSection = GridAugmentSection()  # type: ignore[assignment]

    @model_validator(mode="after")
    def _cubes_fit(self) -> NeRFMAERecipe:
        self.mask.require_cubes(self.model.encoder.side)
        return self


class NeRFMAE(VolumeMAE):
    """Masked autoencoder of radiance grids."""

    Recipe = NeRFMAERecipe

    def __init__(self, recipe: NeRFMAERecipe) -> None:
        super().__init__(recipe)
        self.target = RadianceTarget(recipe.target)

    def forward(self, batch: Batch, masks: dict[str, TokenMask], ctx: Context) -> Output:
        """Colour error of occupied voxels plus opacity error of masked voxels; ``prediction`` is
        (B, 4, R, R, R), with opacity before the sigmoid."""
        hidden = self.hidden(masks)  # (B, X, Y, Z)
        prediction = self.predict(batch, hidden, ctx)
        grid = batch.views["grid"]
        loss = self.target.loss(prediction, grid, voxels_of(hidden, self.patch), self.valid(batch))
        terms = {"colour": loss.colour.detach(), "opacity": loss.opacity.detach()}
        return Output(loss.total, terms, prediction, masks)

    def valid(self, batch: Batch) -> Tensor:
        """(B, 1, R, R, R) bool: voxels of the scenes, without padding; reads the view ``size``."""
        return valid_voxels(batch.views["size"], batch.views["grid"].shape[-1])

    def panels(self, batch: Batch, masks: dict[str, TokenMask], ctx: Context) -> list[Panel]:
        """Views of the volume from above, cut open: original, masked, reconstruction, and the
        reconstruction of the masked part with the visible part."""
        hidden = self.hidden(masks)
        masked = voxels_of(hidden, self.patch)
        grid, valid = batch.views["grid"], self.valid(batch)
        rebuilt = self.predict(batch, hidden, ctx).float()
        rebuilt = torch.cat([rebuilt[:, :3].clamp(0, 1), rebuilt[:, 3:].sigmoid()], dim=1)
        seen = grid.masked_fill(masked, 0.0)
        return [
            Panel("original", march(grid)),
            Panel("masked", march(seen)),
            Panel("reconstruction", march(rebuilt * valid)),
            Panel("reconstruction + visible", march(torch.where(masked, rebuilt, grid) * valid)),
        ]

    # --- published checkpoints ---

    def export_reference(self) -> dict[str, Tensor]:
        if self.recipe.model.decoder.kind != "unet":
            raise NotImplementedError(
                "published NeRF-MAE has no decoder of model.decoder.kind=light"
            )
        return {_to_published(name): tensor for name, tensor in self.state_dict().items()}

    @classmethod
    def import_reference(cls, state: dict[str, Tensor]) -> dict[str, Tensor]:
        return {_from_published(name): tensor for name, tensor in state.items()}


# Names outside the blocks: ours and the published code's.
_PAIRS = (
    ("encoder.patch_embed.proj.", "patch_partition.0."),
    ("encoder.patch_embed.norm.", "patch_partition.2."),
    ("encoder.pos_embed", "pos_embed"),
    ("decoder.up4.", "decoder4."),
    ("decoder.up3.", "decoder3."),
    ("decoder.up2.", "decoder2."),
    ("decoder.up1.", "decoder1."),
    ("decoder.out.", "out.conv."),
    (".mlp.fc1.", ".mlp.0."),
    (".mlp.fc2.", ".mlp.3."),
)


def _to_published(name: str) -> str:
    """``encoder.stages.1.blocks.0.norm1.bias`` -> ``stages.1.1.norm1.bias``: in later stages, patch
    merging has number 0."""
    if found := re.match(r"encoder\.stages\.(\d+)\.(merge|blocks\.(\d+))\.", name):
        stage, _, block = found.groups()
        number = int(block) + (stage != "0") if block else 0
        name = f"stages.{stage}.{number}.{name[found.end() :]}"
    for ours, published in _PAIRS:
        name = name.replace(ours, published)
    return name


def _from_published(name: str) -> str:
    if found := re.match(r"stages\.(\d+)\.(\d+)\.", name):
        stage, number = found[1], int(found[2])
        part = f"blocks.{number - (stage != '0')}" if stage == "0" or number else "merge"
        name = f"encoder.stages.{stage}.{part}.{name[found.end() :]}"
    for ours, published in _PAIRS:
        if name.startswith(published) or published.startswith("."):
            name = name.replace(published, ours, 1)
    return name
