"""Decoding of stored radiance grids."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mimsuite.data.damage import CorruptSample
from mimsuite.data.decoder import Channels, Decoder
from mimsuite.data.volume import files as grids


@dataclass(frozen=True)
class RadianceGrid:
    """A decoded scene; None: not in the file.

    Attributes:
        values: (X, Y, Z, 4) float32: colour in [0, 1] and density.
        density_kind: ``log``, ``linear`` or ``alpha``.
        delta: ray step of the alpha formula, in units of the field.
        boxes: (G, 7) float32 in voxels: centre, sides, yaw.
        labels: (X, Y, Z) uint8 voxel classes, 0 = unlabelled.
    """

    values: Tensor
    density_kind: str | None
    delta: float | None
    boxes: Tensor | None = None
    labels: Tensor | None = None


class GridDecoder(Decoder):
    """``.npz`` with ``rgbsigma`` -> :class:`RadianceGrid`.

    Args:
        channels: unused for grids.
        max_pixels: largest number of voxels; larger grids are refused.
    """

    def __init__(self, channels: Channels = "native", max_pixels: int = 64_000_000) -> None:
        self.max_pixels = max_pixels

    @property
    def extensions(self) -> tuple[str, ...]:
        return ("npz",)

    def __call__(self, payload: bytes | np.ndarray) -> RadianceGrid:
        """Decode one scene; raises ``CorruptSample``, kind ``too-large`` or ``decode``."""
        if isinstance(payload, np.ndarray):
            raise CorruptSample("decode", "an array is no .npz file")
        stored = grids.read(payload)
        grid, kind, delta = stored.values, stored.density_kind, stored.delta
        if grid[..., 0].size > self.max_pixels:
            raise CorruptSample("too-large", f"more voxels than data.max_pixels={self.max_pixels}")
        if grid.dtype == np.uint8:  # uint8 can only be opacity: density is unbounded
            grid, kind = grid.astype(np.float32) / 255, "alpha"
        truth = [None if known is None else torch.from_numpy(known) for known in stored[3:]]
        return RadianceGrid(torch.from_numpy(grid.astype(np.float32)), kind, delta, *truth)
