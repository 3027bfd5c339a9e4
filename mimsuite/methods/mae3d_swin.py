"""NeRF-MAE's network on medical scans: cubes of a crop are masked, and a 3-D Swin transformer with
a U-Net rebuilds their intensities (after Irshad et al., arXiv:2404.01300, who rebuild colour and
opacity).

Letters: B batch, R voxels along a side of a crop, C channels.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic import model_validator
from torch import Tensor

from mimsuite.batch import Batch
from mimsuite.config.keys.scans import (
    IntensityTargetSection,
    ScanAugmentSection,
    ScanDataSection,
    ScanSwinModelSection,
)
from mimsuite.config.keys.shared import MethodCard, MethodSection, Recipe
from mimsuite.config.keys.volume import VolumeMaskSection
from mimsuite.masking import TokenMask
from mimsuite.methods.base import Context, Output, Panel
from mimsuite.methods.volume_mae import VolumeMAE
from mimsuite.pictures.volumes import slices
from mimsuite.targets.radiance import mean_over, voxels_of


class SwinMAE3DSection(MethodSection):
    """`method:` it has no keys of its own: model, mask and target say it all."""

    name: Literal["mae3d-swin"]


class SwinMAE3DRecipe(Recipe):
    """A recipe for masked pretraining of a Swin transformer on scans."""

    card: ClassVar[MethodCard] = MethodCard("arXiv:2404.01300", "experimental", ())

    method: SwinMAE3DSection
    model: ScanSwinModelSection
    mask: VolumeMaskSection
    target: IntensityTargetSection
    data: ScanDataSection = ScanDataSection()
    augment: ScanAugmentSection  # type: ignore[assignment]

    @model_validator(mode="after")
    def _cubes_fit(self) -> SwinMAE3DRecipe:
        self.mask.require_cubes(self.model.encoder.side)
        return self


class SwinMAE3D(VolumeMAE):
    """Masked autoencoder of crops of scans."""

    Recipe = SwinMAE3DRecipe

    def forward(self, batch: Batch, masks: dict[str, TokenMask], ctx: Context) -> Output:
        """Mean error of masked voxels; ``prediction`` is (B, C, R, R, R). Their number may differ
        between steps, so the loss is a ratio of sums."""
        hidden = self.hidden(masks)
        prediction = self.predict(batch, hidden, ctx)
        wide = torch.promote_types(prediction.dtype, torch.float32)
        error = prediction.to(wide) - batch.views["scan"]
        error = error.abs() if self.recipe.target.loss == "l1" else error.square()
        masked = voxels_of(hidden, self.patch)  # (B, 1, R, R, R)
        loss = mean_over(error.mean(1, keepdim=True), masked)
        weight = masked.sum().clamp_min(1)
        return Output(loss, {"voxels": loss.detach()}, prediction, masks, weight)

    def panels(self, batch: Batch, masks: dict[str, TokenMask], ctx: Context) -> list[Panel]:
        """Three slices of each crop: original, masked, and the masked part rebuilt."""
        hidden = self.hidden(masks)
        scans, masked = batch.views["scan"].float(), voxels_of(hidden, self.patch)
        rebuilt: Tensor = self.predict(batch, hidden, ctx).float()
        return [
            Panel("original", slices(scans)),
            Panel("masked", slices(scans.masked_fill(masked, 0.0))),
            Panel("reconstruction", slices(torch.where(masked, rebuilt, scans))),
        ]
