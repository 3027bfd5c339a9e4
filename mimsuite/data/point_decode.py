"""From a stored cloud to coordinates."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from mimsuite.data.damage import CorruptSample
from mimsuite.data.decode import Channels, Decoder
from mimsuite.formats.arrays import NPY_MAGIC, read_npy
from mimsuite.formats.points import check_parts

# Coordinates; with normals or colours, which are not used; each of them with a part's number.
_COLUMNS = (3, 6, 4, 7)
_ROW_BYTES = 7 * 8  # at most


class PointDecoder(Decoder):
    """``.npy`` file or array of (N, 3) or (N, 6) floats -> (N, 3) float32 coordinates; of (N, 4) or
    (N, 7), whose last column is the part that a point is of -> (N, 4), with that column.

    Other formats are turned into such files by ``mimsuite data pack``.

    Args:
        channels: not used.
        max_pixels: larger clouds are refused before they are read.
    """

    def __init__(self, channels: Channels = "native", max_pixels: int = 64_000_000) -> None:
        super().__init__("native", max_pixels)

    @property
    def extensions(self) -> tuple[str, ...]:
        return ("npy",)

    def __call__(self, payload: bytes | np.ndarray) -> Tensor:
        """Decode one cloud.

        Raises:
            CorruptSample: kind ``too-large`` or ``decode``.
        """
        if isinstance(payload, bytes):
            if not payload.startswith(NPY_MAGIC):
                raise CorruptSample("decode", "no .npy file: convert it with mimsuite data pack")
            payload = read_npy(payload, "f", self.max_pixels * _ROW_BYTES)
        if payload.ndim != 2 or payload.shape[1] not in _COLUMNS or not len(payload):
            raise CorruptSample(
                "decode",
                f"an array of shape {payload.shape}; a cloud is (N, 3) or (N, 6), or one more",
            )
        kept = [0, 1, 2] if payload.shape[1] % 3 == 0 else [0, 1, 2, -1]
        points = payload[:, kept].astype(np.float32)
        if not np.isfinite(points).all():
            raise CorruptSample("decode", "coordinates that are not finite")
        if len(kept) > 3:
            check_parts(points[:, 3])
        return torch.from_numpy(points)
