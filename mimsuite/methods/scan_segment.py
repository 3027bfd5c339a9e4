"""Classes of the voxels of scans, by a pretrained transformer of cubes and a U-Net (UNETR,
Hatamizadeh et al., arXiv:2103.10504).

Trained on crops; a whole scan is labelled window by window. Unlike UNETR, the norms of the U-Net
have no affine parameters.

Letters: B batch, K classes with the background, (X, Y, Z) voxels.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic import model_validator
from torch import Tensor

from mimsuite.batch import Batch
from mimsuite.config.keys.scan_tasks import (
    LabelledScanAugmentSection,
    ScanLabelTargetSection,
    ScanSegmentSection,
)
from mimsuite.config.keys.scans import ScanDataSection
from mimsuite.config.keys.section import EmptySection
from mimsuite.config.keys.shared import MethodCard, MethodSection, Recipe
from mimsuite.errors import DataError
from mimsuite.masking import TokenMask
from mimsuite.methods.base import Context, Method, Output, Panel
from mimsuite.models import CubeViT
from mimsuite.models.cube_unet import CubeUNet
from mimsuite.models.sliding_window import sliding_window
from mimsuite.noise import Noise
from mimsuite.pictures.volumes import coloured, slices
from mimsuite.targets.scan_labels import dice_cross_entropy

_UNKNOWN = 255  # in label maps: the class of this voxel is not known


class ScanSegmentMethodSection(MethodSection):
    """`method:` segmentation of scans has no keys of its own."""

    name: Literal["scan-segment"]


class ScanSegmentRecipe(Recipe):
    """A recipe for the classes of the voxels of scans."""

    card: ClassVar[MethodCard] = MethodCard("arXiv:2103.10504", "experimental")

    method: ScanSegmentMethodSection
    model: ScanSegmentSection
    mask: EmptySection = EmptySection()
    target: ScanLabelTargetSection
    data: ScanDataSection = ScanDataSection()
    augment: LabelledScanAugmentSection  # type: ignore[assignment]

    @model_validator(mode="after")
    def _of_scans(self) -> ScanSegmentRecipe:
        if self.recipe.modality != "scans":
            raise ValueError(f"method.name {self.method.name} takes scans: recipe.modality=scans")
        self.augment.require_turnable(self.model.encoder.size)
        return self


class ScanSegmenter(Method):
    """An encoder of cubes and a U-Net to voxels."""

    Recipe = ScanSegmentRecipe
    encoder: CubeViT

    def __init__(self, recipe: ScanSegmentRecipe) -> None:
        super().__init__(recipe)
        self.classes = recipe.target.labels
        self.window, self.overlap = recipe.model.encoder.size, recipe.augment.test_overlap
        self.at_once = recipe.eval.batch
        self.encoder = CubeViT(recipe.model.encoder)
        self.unet = CubeUNet(recipe.model, self.classes)

    def check(self, batch: Batch) -> None:
        """Raise a ``DataError`` for a batch with labels out of range."""
        for key, labels in zip(batch.keys, batch.views["labels"], strict=False):
            known = labels[labels != _UNKNOWN]
            if len(known) and int(known.max()) >= self.classes:
                raise DataError(
                    f"sample {key}: a voxel has class {int(known.max())}; target.labels is "
                    f"{self.classes}, so classes are 0 to {self.classes - 1}"
                )

    def forward(self, batch: Batch, masks: dict[str, TokenMask], ctx: Context) -> Output:
        """Dice and cross-entropy, summed; ``prediction`` is the logits (B, K, X, Y, Z)."""
        labels = batch.views["labels"].long()
        known = labels != _UNKNOWN
        logits = self.crop_logits(batch.views["scan"], ctx.noise)
        dice, entropy = dice_cross_entropy(logits, labels.clamp(0, self.classes - 1), known)
        terms = {"dice_loss": dice.detach(), "cross_entropy": entropy.detach()}
        return Output(dice + entropy, terms, logits, masks)

    def crop_logits(self, scans: Tensor, noise: Noise | None = None) -> Tensor:
        """(B, C, X, Y, Z) crops -> (B, K, X, Y, Z) logits."""
        x, y, z = scans.shape[2:]
        grid = self.encoder.section.grid_of((x, y, z))
        cubes = self.encoder.tubelets(scans)
        features = self.encoder(cubes, noise=noise, layers=self.unet.blocks, grid=grid)
        logits: Tensor = self.unet(features, scans, grid)
        return logits

    def voxel_labels(self, scan: Tensor) -> Tensor:
        """(C, X, Y, Z) whole scan, no side shorter than a crop's -> (X, Y, Z) int64 classes."""
        logits = sliding_window(self.crop_logits, scan, self.window, self.overlap, self.at_once)
        return logits.argmax(0)

    def panels(self, batch: Batch, masks: dict[str, TokenMask], ctx: Context) -> list[Panel]:
        """Three slices of each crop: as it is, with its true classes, with the predicted ones."""
        scans, labels = batch.views["scan"].float(), batch.views["labels"].long()
        found = self.crop_logits(scans).argmax(1)
        mean, std = (torch.tensor(one).view(-1)[:1].item() for one in self._statistics())
        grey = slices(scans * std + mean).clamp(0, 1)
        drawn = {
            "original": grey.expand(-1, 3, -1, -1),
            "labels": coloured(grey, slices(labels[:, None])[:, 0]),
            "prediction": coloured(grey, slices(found[:, None])[:, 0]),
        }
        return [Panel(title, (images - mean) / std) for title, images in drawn.items()]

    def _statistics(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        augment = self.recipe.augment
        return augment.mean, augment.std
