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
from torch import Tensor, nn

from mimsuite.batch import Batch
from mimsuite.config.keys.shared import MethodCard, MethodSection, Recipe
from mimsuite.config.keys.volume import (
    GridAugmentSection,
    RadianceTargetSection,
    VolumeMaskSection,
    VolumeModelSection,
)
from mimsuite.masking import CubeSampler, TokenMask
from mimsuite.methods.base import Context, Method, Output, Panel
from mimsuite.models.swin3d import Swin3D
from mimsuite.models.volume_decoder import VolumeDecoder
from mimsuite.noise import Noise
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
        cubes = (self.model.encoder.side // self.mask.cube) ** 3
        masked = round(cubes * self.mask.ratio)
        if masked in (0, cubes):
            raise ValueError(
                f"mask.ratio {self.mask.ratio} masks {masked} of {cubes} cubes of mask.cube "
                f"{self.mask.cube} tokens: at least one must be masked and one left"
            )
        return self


class NeRFMAE(Method):
    """Masked autoencoder of volumes."""

    Recipe = NeRFMAERecipe
    encoder: Swin3D

    def __init__(self, recipe: NeRFMAERecipe) -> None:
        super().__init__(recipe)
        section = recipe.model.encoder
        self.patch = section.patch_size
        self.sampler = CubeSampler(recipe.mask)
        self.target = RadianceTarget(recipe.target)
        self.encoder = Swin3D(section)
        self.decoder = VolumeDecoder(recipe.model.decoder, section)
        self.mask_token = nn.Parameter(torch.zeros(section.width))
        nn.init.normal_(self.mask_token, std=0.02)

    def mask(self, batch: Batch, noise: Noise, ctx: Context) -> dict[str, TokenMask]:
        return {"grid": self.sampler.sample(noise, self.encoder.grid)}

    def forward(self, batch: Batch, masks: dict[str, TokenMask], ctx: Context) -> Output:
        """Colour error of occupied voxels plus opacity error of masked voxels; ``prediction`` is
        (B, 4, R, R, R), with opacity before the sigmoid."""
        hidden = self._hidden(masks["grid"])  # (B, X, Y, Z)
        prediction = self._predict(batch, hidden, ctx)
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
        hidden = self._hidden(masks["grid"])
        masked = voxels_of(hidden, self.patch)
        grid, valid = batch.views["grid"], self.valid(batch)
        rebuilt = self._predict(batch, hidden, ctx).float()
        rebuilt = torch.cat([rebuilt[:, :3].clamp(0, 1), rebuilt[:, 3:].sigmoid()], dim=1)
        seen = grid.masked_fill(masked, 0.0)
        return [
            Panel("original", march(grid)),
            Panel("masked", march(seen)),
            Panel("reconstruction", march(rebuilt * valid)),
            Panel("reconstruction + visible", march(torch.where(masked, rebuilt, grid) * valid)),
        ]

    def _predict(self, batch: Batch, hidden: Tensor, ctx: Context) -> Tensor:
        features = self.encoder(batch.views["grid"], (hidden, self.mask_token), noise=ctx.noise)
        prediction: Tensor = self.decoder(features)
        return prediction

    def _hidden(self, mask: TokenMask) -> Tensor:
        return mask.dense().unflatten(1, mask.grid)

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
