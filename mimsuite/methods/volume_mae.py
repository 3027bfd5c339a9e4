"""What masked autoencoders of whole volumes share: radiance grids of NeRF-MAE, crops of scans.

Windows of attention need whole volumes, so cubes of tokens are replaced by a mask token and not
left out. A 3-D Swin transformer and a U-Net predict every voxel.

Letters: B batch, (X, Y, Z) tokens along the axes, C channels, R voxels along a side.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from mimsuite.batch import Batch
from mimsuite.config.keys.shared import Recipe
from mimsuite.masking import CubeSampler, TokenMask
from mimsuite.methods.base import Context, Method
from mimsuite.models.swin3d import Swin3D
from mimsuite.models.volume_decoder import VolumeDecoder
from mimsuite.noise import Noise


class VolumeMAE(Method):
    """Replaces cubes of tokens and predicts the voxels of the whole volume."""

    encoder: Swin3D

    def __init__(self, recipe: Recipe) -> None:
        super().__init__(recipe)
        known: Any = recipe
        section = known.model.encoder
        self.view, self.patch = section.view, section.patch_size
        self.sampler = CubeSampler(known.mask)
        self.encoder = Swin3D(section)
        self.decoder = VolumeDecoder(known.model.decoder, section)
        self.mask_token = nn.Parameter(torch.zeros(section.width))
        nn.init.normal_(self.mask_token, std=0.02)

    def mask(self, batch: Batch, noise: Noise, ctx: Context) -> dict[str, TokenMask]:
        return {self.view: self.sampler.sample(noise, self.encoder.grid)}

    def hidden(self, masks: dict[str, TokenMask]) -> Tensor:
        """(B, X, Y, Z) bool, the tokens that are replaced."""
        mask = masks[self.view]
        return mask.dense().unflatten(1, mask.grid)

    def predict(self, batch: Batch, hidden: Tensor, ctx: Context) -> Tensor:
        """(B, C, R, R, R)."""
        features = self.encoder(batch.views[self.view], (hidden, self.mask_token), noise=ctx.noise)
        prediction: Tensor = self.decoder(features)
        return prediction
