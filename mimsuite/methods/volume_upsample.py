"""Super-resolution of radiance grids (NeRF-MAE, Irshad et al., arXiv:2404.01300, section 4).

Letters: B batch, R and S voxels along a side of the input and of the prediction.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import model_validator
from torch import Tensor

from mimsuite.batch import Batch
from mimsuite.config.keys.shared import MethodCard, MethodSection
from mimsuite.config.keys.volume_tasks import FinerTargetSection, GridRecipe, UpsamplerSection
from mimsuite.errors import DataError
from mimsuite.masking import TokenMask
from mimsuite.methods.base import Context, Method, Output
from mimsuite.models.swin3d import Swin3D
from mimsuite.models.volume_upsampler import VolumeUpsampler
from mimsuite.noise import Noise
from mimsuite.targets.radiance import colour_error


class VolumeUpsampleSection(MethodSection):
    """`method:` super-resolution has no keys of its own."""

    name: Literal["volume-upsample"]


class VolumeUpsampleRecipe(GridRecipe):
    """A recipe for super-resolution."""

    card: ClassVar[MethodCard] = MethodCard("arXiv:2404.01300", "experimental")

    method: VolumeUpsampleSection
    model: UpsamplerSection
    target: FinerTargetSection

    @model_validator(mode="after")
    def _is_finer(self) -> VolumeUpsampleRecipe:
        fine, encoder = self.target.resolution, self.model.encoder
        if fine <= encoder.resolution or fine % encoder.patch_size:
            raise ValueError(
                f"target.resolution {fine} must be larger than model.encoder.resolution "
                f"{encoder.resolution} and a multiple of its patch_size {encoder.patch_size}"
            )
        return self


class VolumeUpsampling(Method):
    """An encoder of volumes, and convolutions to a finer grid."""

    Recipe = VolumeUpsampleRecipe
    encoder: Swin3D

    def __init__(self, recipe: VolumeUpsampleRecipe) -> None:
        super().__init__(recipe)
        section, self.target = recipe.model.encoder, recipe.target
        self.encoder = Swin3D(section)
        self.head = VolumeUpsampler(section, recipe.model.widths, self.target.resolution)

    def check(self, batch: Batch) -> None:
        """Raise a ``DataError`` for a batch without finer grids."""
        self._fine(batch)

    def forward(self, batch: Batch, masks: dict[str, TokenMask], ctx: Context) -> Output:
        """Squared colour error in occupied voxels; ``prediction`` is (B, 4, S, S, S)."""
        prediction = self.super_resolution(batch.views["grid"], ctx.noise)
        error, count = colour_error(prediction, self._fine(batch), self.target.occupied)
        loss = error.sum() / count.sum().clamp_min(1)
        return Output(loss, {"colour": loss.detach()}, prediction, masks, count.sum().clamp_min(1))

    def super_resolution(self, grids: Tensor, noise: Noise | None = None) -> Tensor:
        """(B, 4, R, R, R) -> (B, 4, S, S, S); colour is not clamped."""
        predicted: Tensor = self.head(self.encoder(grids, noise=noise))
        return predicted

    def _fine(self, batch: Batch) -> Tensor:
        if "fine" not in batch.views:
            raise DataError("super-resolution needs the view 'fine': set recipe.modality=grids")
        return batch.views["fine"].float()
