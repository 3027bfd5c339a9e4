"""Decoding of stored point clouds."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from mimsuite.data.decoder import Channels, Decoder
from mimsuite.data.points.files import read_plain

_ROW_BYTES = 7 * 8  # largest size of a row


class PointDecoder(Decoder):
    """Plain numbers -> (N, 3) float32 coordinates, or (N, 4) with part ids.

    Reads ``.npy`` files and arrays of (N, 3) or (N, 6) floats (one more column: part ids), text,
    and rows of float32. ``mimsuite data pack`` converts other formats to ``.npy``.

    Args:
        channels: unused for clouds.
        max_pixels: largest number of points; larger clouds are refused before decoding.
    """

    layouts = ("mimsuite.data.points.cloud_folders",)

    def __init__(self, channels: Channels = "native", max_pixels: int = 64_000_000) -> None:
        self.max_pixels = max_pixels

    @property
    def extensions(self) -> tuple[str, ...]:
        return ("npy", "xyz", "pts", "asc")

    def __call__(self, payload: bytes | np.ndarray) -> Tensor:
        """Decode one cloud.

        Raises:
            CorruptSample: kind ``too-large``, ``truncated`` or ``decode``.
        """
        return torch.from_numpy(read_plain(payload, self.max_pixels * _ROW_BYTES))
