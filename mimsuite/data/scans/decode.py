"""From a stored scan to one that crops are cut from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from mimsuite.data.damage import CorruptSample
from mimsuite.data.decoder import Channels, Decoder
from mimsuite.data.local_file import LocalFile, Stored, Stretch, reader
from mimsuite.data.scans import files
from mimsuite.data.scans.packed import MAGIC, Packed, open_packed
from mimsuite.data.scans.volume import (
    MOST_VOXELS,
    Spacing,
    Summary,
    Volume,
    resampled,
    same_spacing,
    summary_of,
)
from mimsuite.data.source import Payload


@dataclass(frozen=True)
class WholeScan:
    """A scan in memory, at the spacing that is wanted."""

    volume: Volume

    @property
    def shape(self) -> tuple[int, ...]:
        return self.volume.values.shape

    @cached_property
    def summary(self) -> Summary:
        return summary_of(self.volume.values)

    def crop(self, low: Sequence[int], size: Sequence[int]) -> np.ndarray:
        """``size`` voxels from ``low`` on, which lie inside."""
        return self.volume.values[tuple(slice(a, a + n) for a, n in zip(low, size, strict=True))]


@dataclass(frozen=True)
class StoredScan:
    """A scan whose spacing is still to be chosen; nothing but its head was read.

    Attributes:
        data: the file, or where it is.
        most_voxels: larger scans are refused.
    """

    data: Stored | Stretch
    most_voxels: int

    def at(self, spacing: Spacing) -> WholeScan | Packed:
        """The scan at so many mm; one that is packed so is read crop by crop, of others all is
        read and resampled once. Raises CorruptSample."""
        if (packed := self._packed()) is None:
            volume = files.read(self._stored(), self.most_voxels)
        elif same_spacing(packed.spacing, spacing):
            return packed
        else:
            values = packed.crop((0, 0, 0), packed.shape)
            volume = Volume(values, packed.spacing, packed.stored)
        return WholeScan(resampled(volume, spacing, self.most_voxels))

    def _packed(self) -> Packed | None:
        if isinstance(self.data, LocalFile) and Path(self.data.path).is_dir():
            return None
        read = reader(self.data)
        return open_packed(read, self.most_voxels) if read(len(MAGIC), 0) == MAGIC else None

    def _stored(self) -> Stored:
        """All of it, where it lies in a shard as another kind of file."""
        data = self.data
        return data.pread(data.size, 0) if isinstance(data, Stretch) else data


class ScanDecoder(Decoder):
    """Hands over where a scan is; see :class:`StoredScan`.

    Args:
        channels: has no meaning for scans.
        max_pixels: scans of more voxels are refused.
    """

    in_place = True
    in_parts = True
    channel_count = 1
    layouts = ("mimsuite.data.scans.folders",)

    def __init__(self, channels: Channels = "native", max_pixels: int = MOST_VOXELS) -> None:
        self.max_pixels = max_pixels

    @property
    def extensions(self) -> tuple[str, ...]:
        return ("scan", "nii")

    def __call__(self, payload: Payload) -> StoredScan:
        if isinstance(payload, np.ndarray):
            raise CorruptSample("decode", "an array is no scan")
        return StoredScan(payload, self.max_pixels)
