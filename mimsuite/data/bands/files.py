"""Rasters as files: figures, the packed form, a picture.

Runs in a child process and imports no torch. The packed form is a GeoTIFF with a page a date, in
tiles of which a window reads only some; each tile's zlib stream has a checksum.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from datetime import date
from typing import Any
from xml.sax.saxutils import escape

import numpy as np

from mimsuite.data.bands.rasters import (
    GDAL_METADATA,
    GDAL_NO_DATA,
    GEO_TAGS,
    SOFTWARE,
    Raster,
    library,
)
from mimsuite.data.bands.series import Series, StoredSeries
from mimsuite.data.local_file import Stored
from mimsuite.errors import CorruptSample

_TILE = 96  # pixels a side of the picture
_SHOWN = 1024  # pixels a side at most that the picture is made from
_GREY = 128  # where nothing was observed
_PACKED_TILE = 256  # pixels a side
_MOST_BYTES = 1 << 30  # largest raster that is packed whole
_COLOURS = ("red", "green", "blue")


def facts(data: Stored) -> dict[str, int | float | str]:
    """Sides in pixels, dates, bands, type and the share of values that were not observed; reads
    all."""
    with StoredSeries(data).open() as series:
        dates = range(len(series.rasters))
        missing = total = 0
        for box in series.boxes():
            for position in dates:
                _, valid = series.window([position], box)
                missing, total = missing + int((~valid).sum()), total + valid.size
        days = [raster.day for raster in series.rasters if raster.day is not None]
        return {
            "height": series.size[0],
            "width": series.size[1],
            "dates": len(series.rasters),
            "bands": len(series.names),
            "band names": ", ".join(series.names),
            "stored": series.rasters[0].dtype,
            "no data %": round(100 * missing / total, 2),
            "year": min(days).year if days else "unknown",
        }


def store(data: Stored) -> tuple[str, bytes]:
    """The packed form of all dates and bands; values, names, places and dates are kept.

    Raises:
        CorruptSample: damaged, or too large to be one sample.
    """
    with StoredSeries(data).open() as series:
        first = series.rasters[0]
        height, width = series.size
        size = height * width * len(first.names) * first.page.dtype.itemsize * len(series.rasters)
        if size > _MOST_BYTES:
            raise CorruptSample(
                "too-large", f"{size} bytes unpacked: leave it a file, it is read in windows"
            )
        return "geotiff", write(
            [raster.stored(0, 0, height, width) for raster in series.rasters],
            names=first.names,
            no_data=[raster.no_data for raster in series.rasters],
            days=[raster.day for raster in series.rasters],
            place=[_place_tags(raster) for raster in series.rasters],
        )


def write(
    rasters: Sequence[np.ndarray],
    *,
    names: Sequence[str],
    no_data: Sequence[float | None],
    days: Sequence[date | None],
    place: Sequence[list[tuple[Any, ...]]] = (),
) -> bytes:
    """A GeoTIFF of (C, H, W) rasters, a page each.

    Args:
        place: extra tags of each page that say where it was taken.
    """
    tifffile = library("tifffile")
    content = io.BytesIO()
    side = [min(_PACKED_TILE, -(-length // 16) * 16) for length in rasters[0].shape[1:]]
    with tifffile.TiffWriter(content) as file:
        for number, raster in enumerate(rasters):
            tags = [(GDAL_METADATA, "s", 0, _metadata(names, days[number]), True)]
            if (value := no_data[number]) is not None:
                tags.append((GDAL_NO_DATA, "s", 0, f"{value:.17g}", True))
            one = len(raster) == 1  # a page of one band has no axis of bands
            file.write(
                raster[0] if one else np.ascontiguousarray(raster.transpose(1, 2, 0)),
                photometric="minisblack",
                planarconfig=None if one else "contig",
                tile=side,
                compression="zlib",
                predictor=2 if raster.dtype.kind in "iu" else None,
                software=SOFTWARE,
                extratags=[*tags, *(place[number] if place else ())],
                metadata=None,
            )
    return content.getvalue()


def picture(data: Stored) -> np.ndarray:
    """(h, w, 3) uint8, 96 pixels at most: the middle of the first date in three bands (red, green
    and blue where bands are called so), from the 2nd to the 98th percentile; grey: no data."""
    from PIL import Image

    with StoredSeries(data).open() as series:
        height, width = (min(side, _SHOWN) for side in series.size)
        top, left = ((a - b) // 2 for a, b in zip(series.size, (height, width), strict=True))
        values, valid = series.window([0], (top, left, height, width))
        shown = _three(series)
    pixels = np.full((height, width, 3), _GREY, np.uint8)
    for channel, band in enumerate(shown):
        seen = valid[band, 0]
        if seen.any():
            low, high = np.percentile(values[band, 0][seen], (2, 98))
            grey = np.clip((values[band, 0] - low) / max(high - low, 1e-12), 0, 1) * 255
            pixels[..., channel] = np.where(seen, grey.round().astype(np.uint8), _GREY)
    tile = Image.fromarray(pixels)
    tile.thumbnail((_TILE, _TILE))
    return np.asarray(tile)


def _three(series: Series) -> list[int]:
    names = [name.casefold() for name in series.names]
    if all(colour in names for colour in _COLOURS):
        return [names.index(colour) for colour in _COLOURS]
    return [0, 1, 2] if len(names) >= 3 else [0, 0, 0]


def _metadata(names: Sequence[str], day: date | None) -> str:
    items = [
        f'<Item name="DESCRIPTION" sample="{number}" role="description">{escape(name)}</Item>'
        for number, name in enumerate(names)
    ]
    items += [] if day is None else [f'<Item name="date">{day.isoformat()}</Item>']
    return f"<GDALMetadata>{''.join(items)}</GDALMetadata>"


def _place_tags(raster: Raster) -> list[tuple[Any, ...]]:
    tags = (raster.page.tags.get(code) for code in GEO_TAGS)
    return [
        (tag.code, int(tag.dtype), 0 if isinstance(tag.value, str) else tag.count, tag.value, True)
        for tag in tags
        if tag is not None
    ]
