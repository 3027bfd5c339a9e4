"""MAE on cubes of medical scans (SelfMedMAE, Zhou et al., arXiv:2203.05573, after He et al.,
arXiv:2111.06377).

A random quarter of the cubes of a crop is encoded; a small decoder sees their latents, and a mask
token in every other place, and rebuilds the voxels of the hidden cubes.

Unlike MAE there is no class token, and keys of attention have no bias, which changes no softmax.

Letters: B batch, N cubes, V visible, M masked, P = p*p*p*C voxels of a cube.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic import model_validator
from torch import Tensor

from mimsuite.batch import Batch
from mimsuite.config.keys.masks import RandomMaskSection, require_both
from mimsuite.config.keys.scans import (
    CubeAutoencoderSection,
    CubeTargetSection,
    ScanAugmentSection,
    ScanDataSection,
)
from mimsuite.config.keys.shared import MethodCard, MethodSection, Recipe
from mimsuite.masking import TokenMask, build_sampler, gather_tokens
from mimsuite.methods.base import Context, Method, Output, Panel
from mimsuite.models import ClipDecoder, CubeViT
from mimsuite.noise import Noise
from mimsuite.pictures.volumes import slices
from mimsuite.targets import TubeletTarget
from mimsuite.tokens import from_tubelets


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
        x, y, _ = self.model.encoder.size
        if self.augment.rotate and x != y:
            raise ValueError(
                f"augment.rotate turns crops about z, so {x} x {y} voxels must be a square"
            )
        return self


class MAE3D(Method):
    """Masked autoencoder on cubes."""

    Recipe = MAE3DRecipe
    encoder: CubeViT

    def __init__(self, recipe: MAE3DRecipe) -> None:
        super().__init__(recipe)
        section = recipe.model.encoder
        self.grid, self.patch, self.channels = section.grid, section.patch_size, section.in_channels
        self.sampler = build_sampler(recipe.mask)
        self.target = TubeletTarget(recipe.target, recipe.augment.mean, recipe.augment.std)
        self.encoder = CubeViT(section)
        self.decoder = ClipDecoder(
            recipe.model.decoder,
            in_width=section.width,
            out_width=section.patch_size**3 * section.in_channels,
            grid=section.grid,
            eps=section.norm_eps,
            layer_scale=section.layer_scale,
            cosine=section.cosine_attention,
            table=CubeViT.positions,
        )

    def mask(self, batch: Batch, noise: Noise, ctx: Context) -> dict[str, TokenMask]:
        return {"scan": self.sampler.sample(noise, self.grid)}

    def forward(self, batch: Batch, masks: dict[str, TokenMask], ctx: Context) -> Output:
        """Mean squared error over hidden cubes; ``prediction`` is (B, M, P)."""
        mask, scans = masks["scan"], batch.views["scan"]
        prediction = self._predict(scans, mask, ctx)  # (B, M, P)
        target = self.target(self.encoder.tubelets(scans, mask.masked), self.channels)
        loss, _ = self.target.loss(prediction, target, None)
        return Output(loss, {"voxels": loss.detach()}, prediction, masks)

    def reconstruct(self, batch: Batch, masks: dict[str, TokenMask], ctx: Context) -> Tensor:
        """Predictions of the hidden cubes: (B, M, P)."""
        return self._predict(batch.views["scan"], masks["scan"], ctx)

    def panels(self, batch: Batch, masks: dict[str, TokenMask], ctx: Context) -> list[Panel]:
        """Three slices of each crop: original, masked, and the hidden part rebuilt."""
        scans, mask = batch.views["scan"], masks["scan"]
        cubes = self.encoder.tubelets(scans).float()  # (B, N, P)
        hidden = mask.gather(cubes, "masked")
        rebuilt = self.target.denormalize(
            self.reconstruct(batch, masks, ctx), hidden, self.channels
        )
        seen = mask.gather(cubes, "visible")
        whole = gather_tokens(torch.cat([seen, rebuilt], dim=1), mask.restore())
        masked = cubes.masked_fill(mask.dense().unsqueeze(-1), 0.0)
        note = " (true cube mean and contrast)" if self.target.normalize else ""
        return [
            Panel("original", slices(scans.float())),
            Panel("masked", slices(self._volumes(masked))),
            Panel("reconstruction" + note, slices(self._volumes(whole))),
        ]

    def no_weight_decay(self) -> set[str]:
        scales = {name for name, _ in self.named_parameters() if name.endswith(".attn.scale")}
        return scales | {"decoder.mask_token"}

    def _predict(self, scans: Tensor, mask: TokenMask, ctx: Context) -> Tensor:
        visible = self.encoder.tubelets(scans, mask.visible)  # (B, V, P)
        latent = self.encoder(visible, mask.visible, noise=ctx.noise)
        prediction: Tensor = self.decoder(latent, mask)
        return prediction

    def _volumes(self, cubes: Tensor) -> Tensor:
        return from_tubelets(cubes, self.patch, self.patch, self.grid)
