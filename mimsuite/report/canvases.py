"""Tokens drawn where they lie in their samples: images, frames, coloured clouds, slices of volumes.

Letters: B batch, N tokens, H x W pixels, T frames or slices, G groups, P points.
"""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from mimsuite.batch import Batch
from mimsuite.data import modalities
from mimsuite.errors import UserError
from mimsuite.methods import Method
from mimsuite.models import Features
from mimsuite.pictures.clouds import splat

_SLICES = (0.1, 0.3, 0.5, 0.7)  # heights, as shares of the volume's
_FEWEST = 4  # tokens along a volume's axis: coarser stages show nothing
_MARK = (0.89, 0.48, 0.18)  # orange
_PALE = 0.8


class Canvas:
    """Samples of one batch as pictures in [0, 1], and tokens as colours at their places.

    Attributes:
        originals: (B, 3, H, W), or (B, 3, T, H, W).
        grid: tokens along the axes of the picture.
    """

    originals: Tensor
    grid: tuple[int, ...]

    def paint(self, colours: Tensor) -> Tensor:
        """(B, N, 3) in [0, 1] -> pictures in the shape of the originals."""
        batch, size = len(colours), self.originals.shape[2:]
        shaped = colours.transpose(1, 2).reshape(batch, 3, *self.grid)
        return F.interpolate(shaped, size, mode="nearest")

    def mark(self, sample: int, token: int) -> Tensor:
        """(3, H, W): a sample with one token's place, in the frame where it is."""
        colours = torch.zeros(1, int(np.prod(self.grid)), 3)
        colours[0, token] = 1.0
        inside = self.paint(colours)[0, 0]  # (H, W) or (T, H, W)
        picture = self.originals[sample]
        if inside.ndim == 3:
            frame = int(inside.flatten(1).sum(1).argmax())
            picture, inside = picture[:, frame], inside[frame]
        outside = F.pad(1 - inside[None], (1, 1, 1, 1), value=1.0)
        outer = F.max_pool2d(outside, 3, 1)[0] * inside  # its own border
        return torch.where(outer.bool(), torch.tensor(_MARK).view(3, 1, 1), picture)


class PixelCanvas(Canvas):
    """Images and clips."""

    def __init__(self, pixels: Tensor, grid: tuple[int, ...], mean: Any, std: Any) -> None:
        shape = (1, -1, *(1,) * (pixels.ndim - 2))
        scale, shift = (torch.tensor(v, dtype=torch.float32).view(shape) for v in (std, mean))
        shown = (pixels.float().cpu() * scale + shift).clamp(0, 1)
        shown = shown[:, :3] if shown.shape[1] >= 3 else shown[:, :1]
        self.originals = shown.expand(-1, 3, *shown.shape[2:])
        self.grid = grid


class VolumeCanvas(Canvas):
    """Radiance grids, as four slices from above on white; z is up."""

    def __init__(self, grids: Tensor, grid: tuple[int, ...]) -> None:
        colour, alpha = grids[:, :3].clamp(0, 1).cpu(), grids[:, 3:].clamp(0, 1).cpu()
        self.whole = tuple(grids.shape[2:])
        self.originals = self._cut(colour * alpha + 1 - alpha)
        self.grid = grid

    def _cut(self, volume: Tensor) -> Tensor:
        """(B, 3, X, Y, Z) -> (B, 3, T, X, Y)."""
        planes = [int(part * volume.shape[4]) for part in _SLICES]
        return volume[..., planes].permute(0, 1, 4, 2, 3)

    def paint(self, colours: Tensor) -> Tensor:
        shaped = colours.transpose(1, 2).reshape(len(colours), 3, *self.grid)
        return self._cut(F.interpolate(shaped, self.whole, mode="nearest"))


class CloudCanvas(Canvas):
    """Point clouds: a point has the colour of the nearest group's centre."""

    def __init__(self, points: Tensor, center: Tensor) -> None:
        self.points = points.float().cpu()
        self.group = torch.cdist(self.points, center.float().cpu()).argmin(dim=2)  # (B, P)
        self.grid = (center.shape[1],)
        self.originals = self._draw(None)

    def paint(self, colours: Tensor) -> Tensor:
        return self._draw(colours.gather(1, self.group.unsqueeze(2).expand(-1, -1, 3)))

    def mark(self, sample: int, token: int) -> Tensor:
        colours = torch.full((len(self.points[sample]), 3), _PALE)
        colours[self.group[sample] == token] = torch.tensor(_MARK)
        return self._one(sample, colours)

    def _draw(self, colours: Tensor | None) -> Tensor:
        return torch.stack(
            [self._one(i, None if colours is None else colours[i]) for i in range(len(self.points))]
        )

    def _one(self, sample: int, colours: Tensor | None) -> Tensor:
        cloud = self.points[sample].numpy()
        drawn = splat(cloud, cloud, colours=None if colours is None else colours.numpy())
        return torch.from_numpy(drawn).permute(2, 0, 1).float() / 255


def canvas_of(method: Method, batch: Batch, features: Features) -> tuple[Canvas, Tensor]:
    """The canvas of a normalised batch, and the (B, N, D) tokens that are drawn on it.

    Raises:
        UserError: an encoder whose tokens lie on no known grid.
    """
    modality = modalities.get(method.recipe.recipe.modality)
    if modality.canvas is None:
        raise UserError(f"features of {modality.name} samples cannot be drawn")
    canvas, tokens = modalities.target(modality.canvas)(method, batch, features)
    tokens = tokens.detach().float().cpu()
    if tokens.shape[1] != int(np.prod(canvas.grid)):
        raise UserError(
            f"{type(method.encoder).__name__} has {tokens.shape[1]} tokens for {canvas.grid} "
            f"places: its features cannot be drawn"
        )
    return canvas, tokens


def pixel_canvas(method: Method, batch: Batch, features: Features) -> tuple[Canvas, Tensor]:
    """Images, clips, or crops of scans, as slices from the side."""
    encoder, augment = cast(Any, method.encoder), cast(Any, method.recipe.augment)
    pixels = batch.views[next(name for name in ("clip", "scan", "image") if name in batch.views)]
    return PixelCanvas(pixels, encoder.grid, augment.mean, augment.std), features.tokens


def cloud_canvas(method: Method, batch: Batch, features: Features) -> tuple[Canvas, Tensor]:
    """Clouds, whose tokens are groups of points."""
    points = batch.views["points"]
    return CloudCanvas(points, cast(Any, method.encoder).group(points).center), features.tokens


def volume_canvas(method: Method, batch: Batch, features: Features) -> tuple[Canvas, Tensor]:
    """Volumes, by the last stage that is fine enough to show something."""
    fine = [pair for pair in features.maps if min(pair[1]) >= _FEWEST] or features.maps[:1]
    tokens, grid = fine[-1]
    return VolumeCanvas(batch.views["grid"], grid), tokens
