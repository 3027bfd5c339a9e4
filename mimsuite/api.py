"""The public Python surface: open a trained model, encode, reconstruct.

Example:
    >>> import mimsuite
    >>> model = mimsuite.load("runs/first")
    >>> features = model.encode(images)  # Features(cls, tokens)
    >>> pictures = model.reconstruct(images)  # (B, C, H, W)
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mimsuite.batch import Batch
from mimsuite.checkpoints import Opened, open_model
from mimsuite.config import Resolved, recipe_names
from mimsuite.config.keys.section import height_width
from mimsuite.data import views_of
from mimsuite.errors import UserError
from mimsuite.masking import TokenMask
from mimsuite.methods import Method
from mimsuite.models import Features
from mimsuite.noise import Noise
from mimsuite.tokens import unpatchify


def load(path: str | Path, device: str | torch.device = "cpu") -> Model:
    """Open a trained model.

    Args:
        path: a run directory (its newest intact checkpoint is used), a checkpoint directory, a file
            of ``mimsuite export --format safetensors`` or ``mimsuite import``, or an official MAE
            checkpoint (``.pth``).
        device: device of the model.

    Raises:
        mimsuite.errors.UserError: no usable model at ``path``; the message names what is there.
    """
    return Model(open_model(path), device)


def recipes() -> list[str]:
    """Names of the recipes that ship with the suite."""
    return list(recipe_names())


class Model:
    """A trained model in eval mode.

    Its input is images (B, C, H, W), or a :class:`~mimsuite.batch.Batch` with a view ``image``, on
    any device. Models of other modalities take their main view, such as clips (B, C, T, H, W).

    * ``uint8`` in [0, 255] is normalised here with the recipe's ``augment.mean`` and ``std``;
    * floating point must already be normalised, ``(x / 255 - mean) / std``.

    Images are not resized. Nothing here computes gradients; to train on top, use ``method``.

    Attributes:
        method: the trained module.
        resolved: the recipe that it was trained with.
        origin: the checkpoint or file that it was read from.
        step: number of optimizer steps of its training, where known.
        notes: what was read, assumed or dropped when it was opened.
    """

    def __init__(self, opened: Opened, device: str | torch.device = "cpu") -> None:
        self.method: Method = opened.method.to(device)
        self.resolved: Resolved = opened.resolved
        self.origin, self.step, self.notes = opened.origin, opened.step, opened.notes
        self.device = torch.device(device)
        self.has_decoder = opened.has_decoder
        self.view = views_of(self.resolved.recipe).main

    def __repr__(self) -> str:
        return f"Model({self.resolved.recipe.method.name} from {self.origin})"

    @torch.no_grad()
    def encode(self, images: Tensor | Batch, layers: Collection[int] = ()) -> Features:
        """Features of whole images, float32.

        Args:
            images: see :class:`Model`; sides are multiples of the patch size, and may differ from
                those trained with: positions are then resized.
            layers: numbers, from 1, of the blocks whose outputs are also returned.

        Returns:
            ``cls`` (B, 1, D), ``tokens`` (B, N, D) in raster order, ``layers``.

        Raises:
            UserError: the images have a wrong shape.
        """
        return self.method.encode(self._batch(images), layers=layers)

    @torch.no_grad()
    def reconstruct(
        self,
        images: Tensor | Batch,
        *,
        seed: int = 0,
        mask: TokenMask | None = None,
        paste: bool = True,
    ) -> Tensor:
        """Reconstruct images from a random part of their patches.

        Args:
            images: see :class:`Model`; they must have the trained size.
            seed: seed of the random mask; the same seed masks the same patches.
            mask: use this mask instead of a random one.
            paste: show the visible patches unchanged; otherwise they are predictions too.

        Returns:
            (B, C, H, W) float32, normalised like the input. A model trained on normalised patches
            does not predict brightness and contrast; they are taken from the true patches.

        Raises:
            UserError: the model has no trained decoder, or the images have a wrong shape.
        """
        method: Any = self.method  # Any, as `reconstruct` is not part of Method
        if not self.has_decoder or not hasattr(method, "reconstruct"):
            raise UserError(f"{self.origin} holds no trained decoder: it cannot reconstruct")
        if self.view != "image":
            raise UserError("images only: `mimsuite reconstruct` draws samples of other kinds")
        batch = self._batch(images, whole=True)
        noise = Noise(seed, 0, batch.index)
        ctx = method.prepare(batch, noise)
        masks = method.mask(batch, noise, ctx) if mask is None else {"image": mask.to(self.device)}
        tokens: Tensor = method.reconstruct(batch, masks, ctx)  # (B, N, P)
        patches = method.encoder.patches(batch.image)
        tokens = method.target.denormalize(tokens, patches)
        if paste:
            tokens = patches.where(~masks["image"].dense().unsqueeze(-1), tokens)
        return unpatchify(tokens, method.patch_size, method.grid)

    def _batch(self, images: Tensor | Batch, *, whole: bool = False) -> Batch:
        """A normalised float32 batch on the device; ``whole`` requires the trained image size."""
        if self.view != "image":
            return self._other_batch(images)
        batch = images if isinstance(images, Batch) else Batch.of_images(images)
        pixels = self._checked(batch.image)
        section = self.resolved.recipe.model.encoder
        height, width = pixels.shape[2:]
        if whole and (height, width) != height_width(section.image_size):
            trained = " x ".join(map(str, height_width(section.image_size)))
            raise UserError(f"images are {height} x {width}, the model rebuilds {trained}")
        if height % section.patch_size or width % section.patch_size or not height * width:
            raise UserError(
                f"images are {height} x {width}: sides must be multiples of the patch size, "
                f"{section.patch_size}"
            )
        batch = batch.to(self.device)
        return replace(batch, views={**batch.views, "image": self._normalised(batch.image)})

    def _other_batch(self, samples: Tensor | Batch) -> Batch:
        """A normalised float32 batch of samples that are not images, such as clips."""
        batch = samples if isinstance(samples, Batch) else Batch.of_views({self.view: samples})
        batch = batch.to(self.device)
        return replace(
            batch, views={name: self._normalised(view) for name, view in batch.views.items()}
        )

    def _checked(self, images: Tensor) -> Tensor:
        channels = self.resolved.recipe.model.encoder.in_channels
        if images.ndim != 4 or images.shape[1] != channels:
            raise UserError(
                f"images have shape {tuple(images.shape)}, expected (B, {channels}, H, W)"
            )
        if images.dtype is not torch.uint8 and not images.is_floating_point():
            raise UserError(f"images are {images.dtype}, expected uint8 or normalised floats")
        return images

    def _normalised(self, images: Tensor) -> Tensor:
        if images.dtype is not torch.uint8:
            return images.float()
        augment = self.resolved.recipe.augment
        shape = (-1, *(1,) * (images.ndim - 2))  # channels are on axis 1
        mean = torch.tensor(augment.mean, device=self.device).view(shape)
        std = torch.tensor(augment.std, device=self.device).view(shape)
        return (images.float() / 255 - mean) / std
