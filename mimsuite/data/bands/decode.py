"""The decoder of rasters, which hands over where one is."""

from __future__ import annotations

import numpy as np

from mimsuite.data.bands.rasters import EXTENSIONS
from mimsuite.data.bands.series import StoredSeries
from mimsuite.data.damage import CorruptSample
from mimsuite.data.decoder import Channels, Decoder
from mimsuite.data.source import Payload


class BandDecoder(Decoder):
    """See :class:`StoredSeries`.

    Args:
        channels: has no meaning for rasters; ``data.bands`` chooses.
        max_pixels: of a window.
    """

    in_place = True
    in_parts = True
    layouts = ("mimsuite.data.bands.folders",)

    def __init__(self, channels: Channels = "native", max_pixels: int = 64_000_000) -> None:
        self.max_pixels = max_pixels

    @property
    def extensions(self) -> tuple[str, ...]:
        return EXTENSIONS

    def __call__(self, payload: Payload) -> StoredSeries:
        if isinstance(payload, np.ndarray):
            raise CorruptSample("decode", "an array is no GeoTIFF")
        return StoredSeries(payload, self.max_pixels)
