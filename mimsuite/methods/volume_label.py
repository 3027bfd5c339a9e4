"""Semantic labels of radiance-grid voxels (NeRF-MAE, Irshad et al., arXiv:2404.01300).

The model has the pretrained encoder and the coarse part of the pretrained decoder; the last
upsampling is new and also reads the input.

Letters: B batch, R voxels along a side, K classes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import islice
from typing import ClassVar, Literal

import torch
from torch import Tensor

from mimsuite.batch import Batch
from mimsuite.config.keys.shared import MethodCard, MethodSection
from mimsuite.config.keys.volume_tasks import GridRecipe, VoxelModelSection, VoxelTargetSection
from mimsuite.errors import DataError
from mimsuite.masking import TokenMask
from mimsuite.methods.base import Context, Method, Output
from mimsuite.models.swin3d import Swin3D
from mimsuite.models.volume_labels import VoxelUNet
from mimsuite.noise import Noise
from mimsuite.targets.voxels import class_weights, voxel_loss

_WEIGHED = 64  # batches whose voxels are counted for the class weights


class VolumeLabelSection(MethodSection):
    """`method:` voxel labelling has no keys of its own."""

    name: Literal["volume-label"]


class VolumeLabelRecipe(GridRecipe):
    """A recipe for voxel labels."""

    card: ClassVar[MethodCard] = MethodCard("arXiv:2404.01300", "experimental")

    method: VolumeLabelSection
    model: VoxelModelSection
    target: VoxelTargetSection


class VolumeLabeler(Method):
    """An encoder of volumes and a U-Net to voxels."""

    Recipe = VolumeLabelRecipe
    encoder: Swin3D
    class_weights: Tensor

    def __init__(self, recipe: VolumeLabelRecipe) -> None:
        super().__init__(recipe)
        self.classes = recipe.target.labels
        self.encoder = Swin3D(recipe.model.encoder)
        self.unet = VoxelUNet(recipe.model.encoder, self.classes)
        even = (0.0, *[1.0] * (self.classes - 1))
        self.register_buffer("class_weights", torch.tensor(recipe.target.weights or even))

    def setup(self, batches: Callable[[], Iterable[Batch]] | None) -> list[str]:
        """Set class weights by class frequency, if the recipe gives none."""
        if batches is None or self.recipe.target.weights is not None:
            return []
        counts = torch.zeros(self.classes, dtype=torch.int64)
        for batch in islice(batches(), _WEIGHED):
            self.check(batch)
            counts += torch.bincount(self._labels(batch).flatten(), minlength=self.classes).cpu()
        self.class_weights.copy_(class_weights(counts))
        shown = ", ".join(f"{weight:.3g}" for weight in self.class_weights.tolist())
        return [f"class weights: {shown}"]

    def check(self, batch: Batch) -> None:
        """Raise a ``DataError`` for a batch without labels, or with labels out of range."""
        for key, labels in zip(batch.keys, self._labels(batch), strict=True):
            if int(labels.max()) >= self.classes:
                raise DataError(
                    f"sample {key}: a voxel has label {int(labels.max())}; target.labels is "
                    f"{self.classes}"
                )

    def forward(self, batch: Batch, masks: dict[str, TokenMask], ctx: Context) -> Output:
        """Class-weighted cross-entropy; ``prediction`` is the logits (B, K, R, R, R)."""
        labels = self._labels(batch).clamp(0, self.classes - 1)
        logits = self.voxel_logits(batch.views["grid"], ctx.noise)
        loss, mass = voxel_loss(logits, labels, self.class_weights)
        known = labels > 0
        right = ((logits.detach().argmax(1) == labels) & known).sum() / known.sum().clamp_min(1)
        terms = {"cross_entropy": loss.detach(), "voxel_accuracy": right}
        return Output(loss, terms, logits, masks, weight=mass)

    def voxel_logits(self, grids: Tensor, noise: Noise | None = None) -> Tensor:
        """(B, 4, R, R, R) grids -> (B, K, R, R, R) logits."""
        logits: Tensor = self.unet(self.encoder(grids, noise=noise), grids)
        return logits

    def init_aliases(self) -> dict[str, str]:
        """The U-Net is initialised from the pretraining decoder, whose coarse part is the same."""
        shared = ("unet.up4.", "unet.up3.", "unet.up2.")
        names = [name for name in self.state_dict() if name.startswith(shared)]
        return {name: name.replace("unet.", "decoder.", 1) for name in names}

    def _labels(self, batch: Batch) -> Tensor:
        """Labels (B, R, R, R) int64."""
        if "labels" not in batch.views:
            raise DataError("voxel labels need an array 'labels' (X, Y, Z) in each scene's file")
        return batch.views["labels"].long()
