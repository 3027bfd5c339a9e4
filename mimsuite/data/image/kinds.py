"""Which image files there are: told by their first bytes; endings only say what to try.

HEIC needs the extra ``heif``, AVIF a Pillow that was built with it.
"""

from __future__ import annotations

import io
from functools import cache
from importlib.util import find_spec

from PIL import Image, ImageFile, UnidentifiedImageError, features

from mimsuite.data.damage import CorruptSample

# In the order in which a shard's samples prefer them.
_PLAIN = ("jpg", "jpeg", "png", "webp", "gif", "bmp", "tif", "tiff", "jfif", "jpe", "pjpeg", "apng")
_AVIF = ("avif",)
_HEIF = ("heic", "heif", "hif")
IMAGE_EXTENSIONS = _PLAIN + _AVIF + _HEIF
ARRAY_EXTENSIONS = ("npy",)
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")  # of Pillow, always there
PIXEL_TYPES = ("uint8", "uint16", "float32")

_STARTS = {
    b"\xff\xd8\xff": "jpg",
    b"\x89PNG\r\n\x1a\n": "png",
    b"GIF8": "gif",
    b"BM": "bmp",
    b"II*\0": "tif",
    b"MM\0*": "tif",
    b"II+\0": "tif",  # BigTIFF
    b"MM\0+": "tif",
}
_AVIF_BRANDS = (b"avif", b"avis")
_HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
_HEIF_NEEDED = "`pip install 'mimsuite[heif]'` reads"
_AVIF_NEEDED = "a newer Pillow reads"


def readable() -> tuple[str, ...]:
    """Endings of image files that the installed libraries read."""
    return _PLAIN + _AVIF * has_avif() + _HEIF * has_heif()


def mend_of(ending: str, channels: str) -> str:
    """How files with this ending would be read under ``data.channels``; empty: not at all."""
    if ending in _HEIF and not has_heif():
        return f"which {_HEIF_NEEDED}"
    if ending in _AVIF and not has_avif():
        return f"which {_AVIF_NEEDED}"
    if ending in ARRAY_EXTENSIONS and channels != "native":
        return "which data.channels=native reads"
    return ""


def refused_type(dtype: object) -> str:
    """A message for numbers of a type that is not read."""
    known = ", ".join(PIXEL_TYPES)
    return f"{dtype} pixels; known are {known}: convert them to one of these"


def kind_of(data: bytes) -> str | None:
    """The ending that fits the content, whatever the file is called; None: no known image.

    Args:
        data: the file, or at least its first 64 bytes.
    """
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "webp"
    if data[4:8] == b"ftyp":
        brands = data[8 : min(64, int.from_bytes(data[:4], "big"))]
        if any(brand in brands for brand in _AVIF_BRANDS):
            return "avif"
        return "heic" if brands[:4] in _HEIF_BRANDS else None
    return next((kind for start, kind in _STARTS.items() if data.startswith(start)), None)


def avif_bits(data: bytes) -> int:
    """Bits of each channel of an AVIF image, by its ``av1C`` box; 8 where there is none."""
    at = data.find(b"av1C", 0, 1 << 16)
    flags = data[at + 6] if at >= 0 and at + 6 < len(data) else 0
    return 8 + 2 * bool(flags & 0x40) + 2 * bool(flags & 0x40 and flags & 0x20)


def open_image(data: bytes) -> ImageFile.ImageFile:
    """Read the header of an image in an allowed format.

    Raises:
        CorruptSample: it is in none, or in one that the installed libraries do not read.
    """
    kind = kind_of(data)
    formats: tuple[str, ...] = FORMATS
    if kind == "avif":
        if not has_avif():
            raise CorruptSample("decode", f"an AVIF image, which {_AVIF_NEEDED}")
        formats = ("AVIF",)
        _one_avif_thread()
    elif kind == "heic":
        if not has_heif():
            raise CorruptSample("decode", f"a HEIC image, which {_HEIF_NEEDED}")
        formats = ("HEIF",)
        _register_heif()
    try:
        return Image.open(io.BytesIO(data), formats=formats)
    except UnidentifiedImageError:  # its message is the address of the buffer
        raise CorruptSample("decode", f"no image of {', '.join(FORMATS)}, AVIF, HEIC") from None


@cache
def has_avif() -> bool:
    """Whether the installed Pillow decodes AVIF."""
    return "avif" in features.modules and bool(features.check("avif"))


@cache
def has_heif() -> bool:
    """Whether HEIC images are decoded (extra ``heif``)."""
    return find_spec("pillow_heif") is not None


@cache
def _one_avif_thread() -> None:
    from PIL import AvifImagePlugin

    AvifImagePlugin.DEFAULT_MAX_THREADS = 1  # loaders have processes of their own


@cache
def _register_heif() -> None:
    import pillow_heif

    pillow_heif.register_heif_opener(thumbnails=False)
    pillow_heif.options.DECODE_THREADS = 1
