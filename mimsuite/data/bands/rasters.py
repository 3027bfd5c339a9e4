"""GeoTIFF files read window by window: bands with names, no-data values, place and date.

Letters: C bands, H x W pixels of a raster, h x w pixels of a window.
"""

from __future__ import annotations

import io
import logging
import math
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, timedelta
from functools import cache
from importlib import import_module
from typing import Any, BinaryIO

import numpy as np

from mimsuite.data.local_file import Stored, Stretch, opened
from mimsuite.data.unused import notice
from mimsuite.errors import CorruptSample, UserError

EXTENSIONS = ("tif", "tiff", "geotiff")
SOFTWARE = "mimsuite"  # marks files whose pages are the dates of one place
GDAL_METADATA, GDAL_NO_DATA = 42112, 42113
_PLACE_TAGS = (33550, 33922, 34264)  # scale, tie point, transformation
GEO_TAGS = (*_PLACE_TAGS, 34735, 34736, 34737)
_SMALLER_OR_MASK = 1 | 4  # bits of the tag NewSubfileType
_LONGEST_SIDE = 1 << 20
_MOST_BANDS = 4096
_LONGEST_METADATA = 1 << 20
_DATE_ITEMS = ("date", "acquisition_date", "sensing_time")
_DATE = re.compile(
    r"(?<!\d)(?:(\d{4})-?([01]\d)-?([0-3]\d)(?!\d{1,5}(?!\d))|((?:19|20)\d\d)([0-3]\d\d)(?!\d))"
)
_WGS84 = 4326
Place = tuple[float, float]  # latitude, longitude in degrees


@dataclass(frozen=True)
class Raster:
    """One date of a place.

    Attributes:
        page: tifffile's page.
        names: of the bands; ``1``, ``2`` ... where the file has none.
        no_data: value of pixels that were not observed; None: only NaN is.
        day: when it was taken; None: unknown.
    """

    page: Any
    names: tuple[str, ...]
    no_data: float | None
    day: date | None

    @property
    def size(self) -> tuple[int, int]:
        """(H, W)."""
        return int(self.page.imagelength), int(self.page.imagewidth)

    @property
    def dtype(self) -> str:
        return str(self.page.dtype)

    def window(self, top: int, left: int, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
        """(C, h, w) float32 values, 0 where there are none, and (C, h, w) bool: observed. Reads
        only the tiles or strips that the window meets.

        Raises:
            CorruptSample: a tile is damaged.
        """
        values = self.stored(top, left, height, width).astype(np.float32)
        valid = np.isfinite(values)
        if self.no_data is not None and math.isfinite(self.no_data):
            valid &= values != np.float32(self.no_data)
        return np.where(valid, values, np.float32(0)), valid

    def stored(self, top: int, left: int, height: int, width: int) -> np.ndarray:
        """(C, h, w) of the file's type; raises as :meth:`window`."""
        page, file = self.page, self.page.parent.filehandle
        rows, columns = self.size
        deep, wide = _segment_size(page)
        across = -(-columns // wide)
        planes = len(self.names) if page.planarconfig == 2 else 1
        found = np.full((len(self.names), height, width), self._fill(), page.dtype)
        for plane in range(planes):
            first = plane * across * -(-rows // deep)
            for down in range(top // deep, (top + height - 1) // deep + 1):
                for right in range(left // wide, (left + width - 1) // wide + 1):
                    number = first + down * across + right
                    segment = _segment(page, file, number)  # (rows, columns, bands) or None
                    if segment is None:
                        continue
                    y, x = down * deep, right * wide
                    bottom = min(y + segment.shape[0], top + height)
                    end = min(x + segment.shape[1], left + width)
                    upper, begin = max(y, top), max(x, left)
                    part = segment[upper - y : bottom - y, begin - x : end - x].transpose(2, 0, 1)
                    bands = slice(plane, plane + 1) if planes > 1 else slice(None)
                    found[bands, upper - top : bottom - top, begin - left : end - left] = part
        return found

    def place(self, row: float, column: float) -> Place | None:
        """Latitude and longitude of a pixel; None: the file does not say. Raises CorruptSample."""
        tags = self.page.tags
        if (matrix := tags.valueof(34264)) is not None and len(matrix) == 16:
            x = matrix[0] * column + matrix[1] * row + matrix[3]
            y = matrix[4] * column + matrix[5] * row + matrix[7]
        else:
            scale, tie = tags.valueof(33550), tags.valueof(33922)
            if scale is None or tie is None or len(scale) < 2 or len(tie) < 6:
                return None
            x, y = tie[3] + (column - tie[0]) * scale[0], tie[4] - (row - tie[1]) * scale[1]
        keys = self.page.geotiff_tags or {}
        code = keys.get("ProjectedCSTypeGeoKey", keys.get("GeographicTypeGeoKey"))
        if code is None or not 1024 <= int(code) < 32767:
            return None  # a system that the file defines itself
        if int(code) == _WGS84:
            found = float(y), float(x)
        else:
            longitude, latitude = _to_degrees(int(code)).transform(x, y)
            found = float(latitude), float(longitude)
        return found if abs(found[0]) <= 90 and math.isfinite(found[1]) else None

    def _fill(self) -> float:
        """What tiles that the file leaves out hold."""
        fits = self.no_data is not None and (
            self.page.dtype.kind == "f" or math.isfinite(self.no_data)
        )
        return self.no_data if fits and self.no_data is not None else 0


@contextmanager
def opened_rasters(data: Stored | Stretch, name: str = "") -> Iterator[list[Raster]]:
    """The dates in a file: of one that ``data pack`` wrote each page, else the first.

    Args:
        name: of the file; where its tags say no date, the name does.

    Raises:
        CorruptSample: no TIFF, or one that is no raster.
    """
    logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # it also logs what it raises
    stream: BinaryIO = _Span(data) if isinstance(data, Stretch) else opened(data)  # type: ignore[assignment]
    with stream:
        try:
            file = library("tifffile").TiffFile(stream)
            pages = [file.pages.first]
            others = [file.pages.get(number) for number in range(1, len(file.pages))]
            if str(pages[0].software or "") == SOFTWARE:
                pages += others
            elif any(not page.subfiletype & _SMALLER_OR_MASK for page in others):
                notice("pages of a TIFF after the first")
            rasters = [_raster(page, name) for page in pages]
        except (CorruptSample, UserError):
            raise
        except Exception as fault:  # tifffile raises many types on damaged input
            raise _damaged(fault) from None
        yield rasters


def is_geographic(data: Stored) -> bool:
    """Whether a TIFF says where it was taken, or has GDAL's tags."""
    try:
        with opened(data) as stream, library("tifffile").TiffFile(stream) as file:
            tags = file.pages.first.tags
            return any(tag in tags for tag in (*_PLACE_TAGS, GDAL_METADATA, GDAL_NO_DATA))
    except Exception:  # tifffile raises many types on what is no TIFF
        return False


def bands_of(names: Sequence[str], wanted: Sequence[str] | None) -> list[int]:
    """Positions of the wanted bands, given by name or by number from 1; None: all.

    Raises:
        CorruptSample: there is no such band.
    """
    if wanted is None:
        return list(range(len(names)))
    known = {name.casefold(): position for position, name in enumerate(names)}
    known = {str(position + 1): position for position in range(len(names))} | known
    missing = [one for one in wanted if one.casefold() not in known]
    if missing:
        raise CorruptSample(
            "bands",
            f"no band '{missing[0]}'; there are {', '.join(names)}: choose by name, or by number "
            f"from 1, with data.bands (null: all)",
        )
    return [known[one.casefold()] for one in wanted]


def dates_in(name: str) -> list[tuple[date, str]]:
    """The dates in a file's name, each with the name without it: 20200131, 2020-01-31 or, as year
    and day of the year, 2020031."""
    found = []
    for match in _DATE.finditer(name):
        year, month, day, only_year, number = match.groups()
        try:
            if year is None:
                taken = date(int(only_year), 1, 1) + timedelta(int(number) - 1)
                if int(number) < 1 or taken.year != int(only_year):
                    continue
            else:
                taken = date(int(year), int(month), int(day))
        except ValueError:
            continue
        found.append((taken, name[: match.start()] + name[match.end() :]))
    return found


@cache
def library(name: str) -> Any:
    """An optional library for rasters.

    Raises:
        UserError: it is not installed.
    """
    try:
        return import_module(name)
    except ModuleNotFoundError:
        raise UserError(f"rasters need {name}: pip install 'mimsuite[geo]'") from None


def _raster(page: Any, name: str) -> Raster:
    if page.axes not in ("YX", "YXS", "SYX"):
        raise CorruptSample("decode", f"a TIFF with the axes {page.axes}, which is no raster")
    if page.dtype is None or page.dtype.kind not in "iuf" or page.dtype.itemsize > 8:
        raise CorruptSample("decode", f"a raster of {page.dtype} pixels")
    count, sides = int(page.samplesperpixel), (int(page.imagelength), int(page.imagewidth))
    if not 1 <= count <= _MOST_BANDS or not all(1 <= side <= _LONGEST_SIDE for side in sides):
        raise CorruptSample("too-large", f"{count} bands of {sides[0]} x {sides[1]} pixels")
    items = _items(page.tags.valueof(GDAL_METADATA))
    names = [str(number + 1) for number in range(count)]
    for key, sample, text in items:
        if key == "description" and sample is not None and sample < count and text:
            names[sample] = text
    if len({one.casefold() for one in names}) < count:  # such names choose no band
        names = [str(number + 1) for number in range(count)]
    texts = [text for key, _, text in items if key in _DATE_ITEMS] + [name]
    days = [day for text in texts for day, _ in dates_in(text)]
    no_data = _number(page.tags.valueof(GDAL_NO_DATA))
    return Raster(page, tuple(names), no_data, days[0] if days else None)


def _items(text: object) -> list[tuple[str, int | None, str]]:
    """GDAL's metadata: name (of a band's name ``description``), band from 0 and text."""
    if not isinstance(text, str) or len(text) > _LONGEST_METADATA or "<!" in text:
        return []  # entities could grow without end
    try:
        root = ElementTree.fromstring(text.strip("\0 \n"))
    except ElementTree.ParseError:
        return []
    found = []
    for item in root.iter("Item"):
        sample = item.get("sample", "")
        key = item.get("role") or item.get("name") or ""
        band = int(sample) if sample.isascii() and sample.isdigit() else None
        found.append((key.lower(), band, (item.text or "").strip()))
    return found


def _number(text: object) -> float | None:
    try:
        return float(str(text).strip("\0 "))
    except ValueError:
        return None


def _segment_size(page: Any) -> tuple[int, int]:
    """Rows and columns of a tile or strip."""
    if page.is_tiled:
        return int(page.tilelength), int(page.tilewidth)
    return min(int(page.rowsperstrip), int(page.imagelength)), int(page.imagewidth)


def _segment(page: Any, file: Any, number: int) -> np.ndarray | None:
    """(rows, columns, bands) of a tile or strip; None: the file leaves it out."""
    try:
        offset, size = page.dataoffsets[number], page.databytecounts[number]
        if size == 0:
            return None
        file.seek(offset)
        content = file.read(size)
        if len(content) != size:
            raise CorruptSample("truncated", f"the raster ends too early, in tile {number}")
        found, _, shape = page.decode(content, number, jpegtables=page.jpegtables)
    except CorruptSample:
        raise
    except Exception as fault:  # codecs raise many types on damaged input
        raise _damaged(fault) from None
    if found is None:
        return None
    segment: np.ndarray = found[0, : shape[1], : shape[2]]
    return segment


def _damaged(fault: Exception) -> CorruptSample:
    text = " ".join(str(fault).split())[:160]
    return CorruptSample("decode", f"no GeoTIFF that can be read ({text})")


@cache
def _to_degrees(code: int) -> Any:
    """From a coordinate system, by its EPSG code, to longitude and latitude."""
    try:
        return library("pyproj").Transformer.from_crs(code, _WGS84, always_xy=True)
    except UserError:
        raise
    except Exception as fault:  # pyproj has an error of its own, which is not imported here
        raise CorruptSample("decode", f"coordinates in EPSG:{code}: {fault}") from None


class _Span(io.RawIOBase):
    """A sample within a shard as a file."""

    def __init__(self, span: Stretch) -> None:
        self._span, self._at = span, 0

    def seekable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._span.size}[whence]
        self._at = max(0, base + offset)
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: Any) -> int:
        wanted = min(len(buffer), max(0, self._span.size - self._at))
        found = self._span.pread(wanted, self._at) if wanted else b""
        buffer[: len(found)] = found
        self._at += len(found)
        return len(found)
