"""Normalisation on the device: transferring bytes instead of floats is a quarter of the traffic."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from mimsuite.batch import Batch
from mimsuite.config.keys.shared import AugmentSection
from mimsuite.errors import UserError


class Normalize:
    """(x / 255 - mean) / std in float32, channel by channel.

    Args:
        augment: ``mean`` and ``std`` of pixels in [0, 1]: one value per channel, or one for all.
        device: batches are moved there as uint8, then normalised.

    Raises:
        UserError: ``mean`` and ``std`` differ in length, or a ``std`` is zero.
    """

    def __init__(self, augment: AugmentSection, device: torch.device | str = "cpu") -> None:
        if len(augment.mean) != len(augment.std) or not augment.mean or 0.0 in augment.std:
            raise UserError("augment.mean and augment.std need one value a channel, std above 0")
        self.device = torch.device(device)
        self._mean = torch.tensor(augment.mean, device=self.device)[:, None, None]
        self._std = torch.tensor(augment.std, device=self.device)[:, None, None]

    def __call__(self, batch: Batch) -> Batch:
        """Move the batch to the device and normalise it. Views are (B, C, H, W) or
        (B, C, T, H, W), uint8 or float32 in [0, 1].

        Raises:
            UserError: the views' channels do not match ``augment.mean``.
        """
        batch = batch.to(self.device)
        views = {name: self._view(view) for name, view in batch.views.items()}
        return replace(batch, views=views)

    def _view(self, view: Tensor) -> Tensor:
        if len(self._mean) not in (1, view.shape[1]):
            raise UserError(
                f"augment.mean has {len(self._mean)} values, images have {view.shape[1]} "
                f"channels: give one value a channel there and in augment.std, or one for all"
            )
        pixels = view.float().div_(255) if view.dtype == torch.uint8 else view.clone()
        shape = (-1, *(1,) * (view.ndim - 2))  # channels are on axis 1
        return pixels.sub_(self._mean.view(shape)).div_(self._std.view(shape))
