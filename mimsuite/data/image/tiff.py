"""TIFF beyond 8-bit colour: any number of bands, 16 and 32 bits (extra ``geo``).

Pillow silently drops bands and the low bits of colour; tifffile reads everything.
"""

from __future__ import annotations

import io
import logging
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from mimsuite.data.damage import CorruptSample
from mimsuite.data.image.kinds import PIXEL_TYPES, refused_type
from mimsuite.data.image.pixels import check_size
from mimsuite.data.unused import listening, notice

# TIFF tags, and their values.
_SUBFILE, _BITS, _PHOTOMETRIC, _SAMPLES, _EXTRA, _FORMAT = 254, 258, 262, 277, 338, 339
_NO_DATA = 42113  # tag defined by GDAL
_KINDS = {1: "uint", 2: "int", 3: "float"}
_SMALLER_OR_MASK = 1 | 4
_UNKNOWN = 0
_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB = 0, 1, 2
_INTENSITIES = (_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB)
_MOST_VALUES = 4  # times max_pixels: limit of values in all bands together
_NO_DATA_NOTICED = "no-data tags (GDAL); such values are read as pixels"


@dataclass(frozen=True)
class Bands:
    """The first page of a TIFF.

    Attributes:
        pixels: (H, W, C) as stored, in one of :data:`PIXEL_TYPES`; high values are bright.
        colour: whether the first three bands are red, green and blue.
        orientation: EXIF orientation, 1 to 8.
    """

    pixels: np.ndarray
    colour: bool
    orientation: int


def type_of(image: Image.Image) -> str:
    """Pixel dtype of a TIFF opened by Pillow, such as ``int16``; fewer bits count as ``uint8`` or
    ``uint16``."""
    bits = max(_tags(image).get(_BITS, (1,)))
    kind = _KINDS.get(_tags(image).get(_FORMAT, (1,))[0], "uint")
    if kind == "uint" and bits <= 16:
        return "uint8" if bits <= 8 else "uint16"
    return f"{kind}{bits}"


def keeps_all(image: Image.Image) -> bool:
    """Whether Pillow keeps every band and bit of this TIFF."""
    samples = bands_of(image)
    return samples == 1 or (
        type_of(image) == "uint8"
        and samples == len(image.getbands())
        and _UNKNOWN not in _tags(image).get(_EXTRA, ())
    )


def is_no_picture(image: Image.Image) -> bool:
    """Whether its bands are something else than gray or colour, with or without alpha."""
    return _tags(image).get(_PHOTOMETRIC) in (_WHITE_IS_ZERO, _BLACK_IS_ZERO) and (
        bands_of(image) > 2
    )


def is_turned_dark(image: Image.Image) -> bool:
    """Whether high values are dark and Pillow does not invert them (it does so only for 8 bits)."""
    return _tags(image).get(_PHOTOMETRIC) == _WHITE_IS_ZERO and type_of(image) == "uint16"


def bands_of(image: Image.Image) -> int:
    """Number of bands in the file; Pillow may keep fewer."""
    return int(_tags(image).get(_SAMPLES, 1))


def notice_tags(image: Image.Image) -> None:
    """Report what no reader uses: further pages and no-data values."""
    if _NO_DATA in _tags(image):
        notice(_NO_DATA_NOTICED)
    if getattr(image, "n_frames", 1) > 1:
        image.seek(1)
        _notice_page(_tags(image).get(_SUBFILE, 0))
        image.seek(0)


def read_bands(data: bytes, max_pixels: int) -> Bands:
    """All bands of the first page.

    Raises:
        CorruptSample: kind ``too-large`` or ``decode``.
    """
    try:
        import tifffile
    except ImportError:
        raise CorruptSample(
            "decode",
            "a TIFF of several bands or of more than 8 bits; `pip install 'mimsuite[geo]'` "
            "reads those",
        ) from None
    logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # it also logs what it raises
    try:
        with tifffile.TiffFile(io.BytesIO(data)) as file:
            page = file.pages.first
            _check(page, len(data), max_pixels)
            pixels = page.asarray(maxworkers=1)
            orientation = int(page.tags.valueof("Orientation", 1))
            if listening():
                _notice_tags_of(file)
    except CorruptSample:
        raise
    except Exception as fault:  # tifffile raises many types on damaged input
        text = " ".join(str(fault).split())[:160]
        raise CorruptSample("decode", f"no TIFF that can be read ({text})") from None
    pixels = pixels.astype(pixels.dtype.newbyteorder("="), copy=False)
    if page.photometric == _WHITE_IS_ZERO and pixels.dtype.kind == "u":
        pixels = np.iinfo(pixels.dtype).max - pixels
    if page.axes == "YX":
        pixels = pixels[:, :, None]
    elif page.axes == "SYX":
        pixels = np.moveaxis(pixels, 0, -1)
    return Bands(pixels, page.photometric == _RGB and pixels.shape[2] >= 3, orientation)


def _tags(image: Image.Image) -> Any:
    return image.tag_v2  # type: ignore[attr-defined]


def _notice_tags_of(file: Any) -> None:
    with suppress(Exception):  # the second page may be damaged; the first is good
        if _NO_DATA in file.pages.first.tags:
            notice(_NO_DATA_NOTICED)
        if file.pages.is_multipage:
            _notice_page(int(file.pages[1].subfiletype))


def _notice_page(subfile: int) -> None:
    """Report a further page; reduced copies and masks do not count."""
    if not subfile & _SMALLER_OR_MASK:
        notice("pages of a TIFF after the first")


def _check(page: Any, size: int, max_pixels: int) -> None:
    """Check the header against the limits and the file size before trusting it."""
    described = f"a TIFF of {page.samplesperpixel} bands of {page.dtype}"
    if page.axes not in ("YX", "YXS", "SYX"):
        raise CorruptSample("decode", f"{described} with the axes {page.axes}, which is no image")
    if str(page.dtype) not in PIXEL_TYPES:
        raise CorruptSample("decode", f"a TIFF of {refused_type(page.dtype)}")
    if page.photometric not in _INTENSITIES:
        raise CorruptSample("decode", f"{described} in {page.photometric.name}: convert it to RGB")
    check_size(page.imagewidth, page.imagelength, max_pixels)
    values = int(np.prod(page.shape))
    if values > _MOST_VALUES * max_pixels:
        raise CorruptSample(
            "too-large",
            f"{values} values in all bands are more than {_MOST_VALUES} x "
            f"data.max_pixels={max_pixels}",
        )
    if page.compression == 1 and values * page.dtype.itemsize > size:
        raise CorruptSample("decode", "its header claims more pixels than it has bytes")
