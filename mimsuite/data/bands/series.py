"""The rasters of one place over time, and the sample that training reads windows of.

Letters: C bands, T dates, h x w pixels of a window.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import numpy as np

from mimsuite.data.bands.rasters import EXTENSIONS, Raster, bands_of, opened_rasters
from mimsuite.data.local_file import LocalFile, Stored, Stretch
from mimsuite.errors import CorruptSample

Box = tuple[int, int, int, int]  # top, left, height, width in pixels


@dataclass(frozen=True)
class Series:
    """Open rasters of one place and size, by date.

    Attributes:
        bands: positions of the bands to read, of each raster.
    """

    rasters: list[Raster]
    bands: list[list[int]]
    most_pixels: int

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) of each raster."""
        return self.rasters[0].size

    @property
    def names(self) -> list[str]:
        """Names of the bands that are read."""
        return [self.rasters[0].names[band] for band in self.bands[0]]

    def window(self, dates: Sequence[int], box: Box) -> tuple[np.ndarray, np.ndarray]:
        """(C, T, h, w) float32 values, 0 where there are none, and (C, T, h, w) bool: observed.
        What lies outside of the raster is not observed.

        Raises:
            CorruptSample: damaged, or more than ``data.max_pixels``.
        """
        top, left, height, width = box
        if height * width > self.most_pixels:
            raise CorruptSample("too-large", f"{height} x {width} pixels in a window")
        upper, begin = max(top, 0), max(left, 0)
        rows = min(top + height, self.size[0]) - upper
        columns = min(left + width, self.size[1]) - begin
        values = np.zeros((len(self.bands[0]), len(dates), height, width), np.float32)
        valid = np.zeros(values.shape, bool)
        for number, position in enumerate(dates):
            found, seen = self.rasters[position].window(upper, begin, rows, columns)
            part = np.s_[
                :, number, upper - top : upper - top + rows, begin - left : begin - left + columns
            ]
            values[part], valid[part] = found[self.bands[position]], seen[self.bands[position]]
        return values, valid

    def boxes(self, side: int = 1024) -> Iterator[Box]:
        """Windows that cover the raster once."""
        height, width = self.size
        for top in range(0, height, side):
            for left in range(0, width, side):
                yield top, left, min(side, height - top), min(side, width - left)

    def place(self, box: Box) -> tuple[float, float]:
        """Latitude and longitude of a window's centre; NaN: unknown."""
        top, left, height, width = box
        found = self.rasters[0].place(top + height / 2, left + width / 2)
        return found or (math.nan, math.nan)

    def days(self, dates: Sequence[int]) -> list[tuple[float, float]]:
        """Year, and day of the year from 1, of each date; NaN: unknown."""
        taken = (self.rasters[position].day for position in dates)
        return [
            (math.nan, math.nan) if day is None else (day.year, day.timetuple().tm_yday)
            for day in taken
        ]


@dataclass(frozen=True)
class StoredSeries:
    """A place whose bands are still to be chosen; nothing was read.

    Attributes:
        data: a file, where it lies in a shard, or a folder of files, one a date.
        most_pixels: of a window.
    """

    data: Stored | Stretch
    most_pixels: int = 64_000_000

    @contextmanager
    def open(self, bands: Sequence[str] | None = None) -> Iterator[Series]:
        """Open all dates.

        Args:
            bands: names or numbers of the bands to read, in this order; None: all.

        Raises:
            CorruptSample: damaged; kind ``bands`` where one lacks a band, or has others than the
                first date, kind ``decode`` where dates differ in size.
        """
        with ExitStack() as stack:
            rasters: list[Raster] = []
            for data, name in _files(self.data):
                rasters += stack.enter_context(opened_rasters(data, name))
            rasters.sort(key=lambda raster: raster.day or date.min)
            first = rasters[0]
            for other in rasters[1:]:
                if other.size != first.size:
                    raise CorruptSample(
                        "decode",
                        f"dates of {_times(first.size)} and of {_times(other.size)} pixels",
                    )
                if bands is None and len(other.names) != len(first.names):
                    raise CorruptSample(
                        "bands", f"dates of {len(first.names)} and of {len(other.names)} bands"
                    )
            chosen = [bands_of(raster.names, bands) for raster in rasters]
            yield Series(rasters, chosen, self.most_pixels)


def rasters_in(folder: Path) -> list[Path]:
    """The rasters directly in a folder, sorted."""
    return sorted(
        path
        for path in folder.iterdir()
        if path.suffix.lower().removeprefix(".") in EXTENSIONS and not path.name.startswith(".")
    )


def _files(data: Stored | Stretch) -> list[tuple[Stored | Stretch, str]]:
    """Each file of a sample with its name."""
    if not isinstance(data, LocalFile):
        return [(data, "")]
    path = Path(data.path)
    if not path.is_dir():
        return [(data, path.name)]
    found = rasters_in(path)
    if not found:
        raise CorruptSample("missing", "a folder without rasters")
    return [(LocalFile(str(one)), one.name) for one in found]


def _times(size: tuple[int, int]) -> str:
    return f"{size[0]} x {size[1]}"
