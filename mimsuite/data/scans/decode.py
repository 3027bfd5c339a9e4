"""From a stored scan to one that crops are cut from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from mimsuite.data.damage import CorruptSample
from mimsuite.data.decoder import Channels, Decoder
from mimsuite.data.local_file import LocalFile, Stored, Stretch, reader
from mimsuite.data.scans import files, label_maps
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
    """A scan, or a label map, in memory, at the spacing that is wanted."""

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
        label_map: the file of its voxels' classes, or where it is; None: it has none.
    """

    data: Stored | Stretch
    most_voxels: int
    label_map: Stored | Stretch | None = None

    def at(self, spacing: Spacing) -> WholeScan | Packed:
        """The scan at so many mm; one that is packed so is read crop by crop, of others all is
        read and resampled once. Raises CorruptSample."""
        if (packed := self._packed(self.data)) is None:
            volume = files.read(_stored(self.data), self.most_voxels)
        elif same_spacing(packed.spacing, spacing):
            return packed
        else:
            values = packed.crop((0, 0, 0), packed.shape)
            volume = Volume(values, packed.spacing, packed.stored)
        return WholeScan(resampled(volume, spacing, self.most_voxels))

    def labels_at(self, spacing: Spacing) -> WholeScan | Packed:
        """The classes of its voxels, uint8, in the same way.

        Raises:
            CorruptSample: it has no label map, or one that cannot be read.
        """
        if self.label_map is None:
            raise CorruptSample("label", "a scan without a label map: leave it out of the folder")
        packed = self._packed(self.label_map)
        if packed is not None and same_spacing(packed.spacing, spacing):
            if packed.dtype != np.uint8:
                raise CorruptSample("label", f"a label map of {packed.dtype}: pack it again")
            return packed
        volume = label_maps.read(_stored(self.label_map), self.most_voxels)
        return WholeScan(resampled(volume, spacing, self.most_voxels, nearest=True))

    def _packed(self, data: Stored | Stretch) -> Packed | None:
        if isinstance(data, LocalFile) and Path(data.path).is_dir():
            return None
        read = reader(data)
        return open_packed(read, self.most_voxels) if read(len(MAGIC), 0) == MAGIC else None


def _stored(data: Stored | Stretch) -> Stored:
    """All of it, where it lies in a shard as another kind of file."""
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
    label_map = label_maps.EXTENSION
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

    def with_label_map(self, payload: Payload, label_map: Payload) -> StoredScan:
        if isinstance(label_map, np.ndarray):
            raise CorruptSample("decode", "an array is no label map")
        return replace(self(payload), label_map=label_map)
