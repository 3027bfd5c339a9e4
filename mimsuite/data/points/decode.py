"""From a stored cloud to coordinates."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from mimsuite.data.decoder import Channels, Decoder
from mimsuite.data.points.files import read_plain

_ROW_BYTES = 7 * 8  # at most


class PointDecoder(Decoder):
    """Plain numbers -> (N, 3) float32 coordinates; with the part that a point is of -> (N, 4).

    Read are ``.npy`` files and arrays of (N, 3) or (N, 6) floats, or one column more for the part,
    text, and rows of float32. Other formats are turned into such files by ``mimsuite data pack``.

    Args:
        channels: has no meaning for clouds.
        max_pixels: larger clouds are refused before they are read.
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
