"""Image formats, recognised by the first bytes; file extensions only select which files to try.

HEIC needs the extra ``heif``, AVIF a Pillow built with AVIF support.
"""

from __future__ import annotations

import io
from functools import cache
from importlib.util import find_spec

from PIL import Image, ImageFile, UnidentifiedImageError, features

from mimsuite.data.damage import CorruptSample

# In order of preference, for shard samples with several images.
_PLAIN = ("jpg", "jpeg", "png", "webp", "gif", "bmp", "tif", "tiff", "jfif", "jpe", "pjpeg", "apng")
_AVIF = ("avif",)
_HEIF = ("heic", "heif", "hif")
IMAGE_EXTENSIONS = _PLAIN + _AVIF + _HEIF
ARRAY_EXTENSIONS = ("npy",)
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")  # in every build of Pillow
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
    """Image file extensions that the installed libraries read."""
    return _PLAIN + _AVIF * has_avif() + _HEIF * has_heif()


def mend_of(ending: str, channels: str) -> str:
    """What would make files with this extension readable, for a message; empty: nothing would."""
    if ending in _HEIF and not has_heif():
        return f"which {_HEIF_NEEDED}"
    if ending in _AVIF and not has_avif():
        return f"which {_AVIF_NEEDED}"
    if ending in ARRAY_EXTENSIONS and channels != "native":
        return "which data.channels=native reads"
    return ""


def refused_type(dtype: object) -> str:
    """Message for pixels of an unsupported dtype."""
    known = ", ".join(PIXEL_TYPES)
    return f"{dtype} pixels; known are {known}: convert them to one of these"


def kind_of(data: bytes) -> str | None:
    """The extension by content, not by file name; None: not a known image format.

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
    """Bits per channel of an AVIF image, from its ``av1C`` box; 8 without that box."""
    at = data.find(b"av1C", 0, 1 << 16)
    flags = data[at + 6] if at >= 0 and at + 6 < len(data) else 0
    return 8 + 2 * bool(flags & 0x40) + 2 * bool(flags & 0x40 and flags & 0x20)


def open_image(data: bytes) -> ImageFile.ImageFile:
    """Read the header of an image in an allowed format.

    Raises:
        CorruptSample: the format is unknown, or the installed libraries do not read it.
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
    except UnidentifiedImageError:  # its own message only names a buffer address
        raise CorruptSample("decode", f"no image of {', '.join(FORMATS)}, AVIF, HEIC") from None


@cache
def has_avif() -> bool:
    """Whether the installed Pillow decodes AVIF."""
    return "avif" in features.modules and bool(features.check("avif"))


@cache
def has_heif() -> bool:
    """Whether HEIC can be decoded (extra ``heif``)."""
    return find_spec("pillow_heif") is not None


@cache
def _one_avif_thread() -> None:
    from PIL import AvifImagePlugin

    AvifImagePlugin.DEFAULT_MAX_THREADS = 1  # loader workers already run in parallel


@cache
def _register_heif() -> None:
    import pillow_heif

    pillow_heif.register_heif_opener(thumbnails=False)
    pillow_heif.options.DECODE_THREADS = 1
