"""Image decoding: an allow-list of formats, size limits checked first, one channel layout.

JPEG is decoded by libjpeg-turbo (:mod:`jpeg`), nearly twice as fast as PIL and with the same colour
pixels. Gray is the stored luma, on average within 0.02 grey levels of PIL's. PIL decodes all other
formats, PNG included: torchvision 0.29's PNG decoder kills the process on a single flipped bit.
"""

from __future__ import annotations

import re
import warnings
from contextlib import suppress

import numpy as np
from PIL import Image, ImageFile, ImageOps
from torch import Tensor

from mimsuite.data.array_files import NPY_MAGIC
from mimsuite.data.damage import CorruptSample
from mimsuite.data.decoder import Channels, Decoder
from mimsuite.data.image import jpeg, png16, tiff
from mimsuite.data.image.kinds import (
    ARRAY_EXTENSIONS,
    PIXEL_TYPES,
    avif_bits,
    kind_of,
    open_image,
    readable,
    refused_type,
)
from mimsuite.data.image.pixels import check_size, from_array, read_npy, reduced, turned
from mimsuite.data.unused import listening, notice

_COUNT: dict[str, int | None] = {"rgb": 3, "gray": 1, "rgba": 4, "gray16": 1, "native": None}
_LOW_BITS = "low bits of images of 16 bits, which data.channels=native keeps"
_BANDS = "further bands of a TIFF, which data.channels=native keeps"
_COLOUR_SPACES = ("CMYK", "YCbCr", "LAB", "HSV")
_EXIF_ORIENTATION = 0x0112
_PLACE_IN_CODE = re.compile(r"\S+\.cpp:\d+, ")  # source location in torchvision's messages


def extensions(channels: Channels) -> tuple[str, ...]:
    """Lower-case extensions that the installed libraries read with this ``data.channels``."""
    return readable() + ARRAY_EXTENSIONS * (channels == "native")


class ImageDecoder(Decoder):
    """Encoded file or array -> (C, H, W) tensor, rotated upright by its EXIF orientation.

    Args:
        channels: ``rgb``, ``gray``, ``rgba``: uint8. Colour, gray and palette images are converted
            as needed; ``rgb`` and ``gray`` blend transparent pixels with white; 16 bits are
            reduced to 8; a TIFF with more bands gives its first three, if they are colour.
            ``gray16``: float32 in [0, 1], keeps 16 bits of gray. ``native``: all stored channels
            (CMYK, LAB and YCbCr as RGB) as uint8, as float32 in [0, 1] for 16 bits, or as float32
            unchanged; also ``.npy`` arrays (H, W) or (H, W, C) of these three types.
        max_pixels: larger images are refused before decoding.
        fast: decode JPEG by simplejpeg where it is installed and gives the same pixels.
    """

    layouts = ("mimsuite.data.sources.tables", "mimsuite.data.sources.idx")

    def __init__(
        self, channels: Channels = "rgb", max_pixels: int = 64_000_000, *, fast: bool = True
    ) -> None:
        self.channels, self.max_pixels, self.fast = channels, max_pixels, fast
        self.channel_count = _COUNT[channels]

    @property
    def extensions(self) -> tuple[str, ...]:
        """Lower-case extensions of the files it decodes."""
        return extensions(self.channels)

    def __call__(self, payload: bytes | np.ndarray) -> Tensor:
        """Decode one image.

        Raises:
            CorruptSample: kind ``too-large``, ``not-finite`` or ``decode``.
        """
        if isinstance(payload, bytes) and payload.startswith(NPY_MAGIC):
            if self.channels != "native":
                raise CorruptSample("decode", "a .npy array needs data.channels=native")
            payload = read_npy(payload, self.max_pixels)
        if isinstance(payload, np.ndarray):
            return self._of_array(payload)
        try:
            return self._decode(payload)
        except CorruptSample:
            raise
        except Exception as fault:  # decoders raise many types on damaged input
            raise CorruptSample("decode", _one_line(fault)) from None

    def _decode(self, data: bytes) -> Tensor:
        if self.channels in ("rgb", "gray", "native"):
            header = jpeg.read_header(data)
            if header is not None:
                check_size(header.width, header.height, self.max_pixels)
                return jpeg.decode(data, header, self.channels, fast=self.fast)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # PIL warns about metadata that is not used
            image = self._open_tiff(data) if kind_of(data) == "tif" else self._open(data)
            if image is None:
                return self._of_bands(tiff.read_bands(data, self.max_pixels))
            if self.channels == "native" and png16.is_deep(image):
                deep = png16.read_deep(lambda: self._open(data))
                return from_array(turned(deep, image.getexif().get(_EXIF_ORIENTATION, 1)))
            image.load()
            pixels = self._convert(_upright(image))
            if listening():
                if kind_of(data) == "avif" and avif_bits(data) > 8:
                    notice("low bits of AVIF images of more than 8 bits")
                with suppress(Exception):  # later frames may be damaged; the first is good
                    _notice_dropped(self._open(data), self.channels)
            return pixels

    def _of_array(self, pixels: np.ndarray) -> Tensor:
        if self.channels == "native":
            return from_array(pixels)
        if self.channels in ("gray", "rgb") and pixels.ndim == 2 and pixels.dtype == np.uint8:
            image = from_array(pixels)
            return image if self.channels == "gray" else image.repeat(3, 1, 1)
        return self._convert(Image.fromarray(pixels))

    def _open(self, data: bytes) -> ImageFile.ImageFile:
        """Read only the header, and refuse images that are too large."""
        if (size := _webp_size(data)) is not None:  # PIL allocates the canvas on opening
            check_size(*size, self.max_pixels)
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None  # checked below
        try:
            image = open_image(data)
        finally:
            Image.MAX_IMAGE_PIXELS = limit
        check_size(*image.size, self.max_pixels)
        return image

    def _open_tiff(self, data: bytes) -> ImageFile.ImageFile | None:
        """As :meth:`_open`, for TIFF; None where Pillow would drop bands or bits."""
        try:
            image = self._open(data)
        except CorruptSample as fault:
            if fault.kind == "too-large":
                raise
            return None
        native = self.channels == "native"
        if tiff.is_turned_dark(image) or tiff.is_no_picture(image):
            return None
        if native and not tiff.keeps_all(image):
            return None
        if (stored := tiff.type_of(image)) not in PIXEL_TYPES:
            raise CorruptSample("decode", refused_type(stored))
        if stored == "float32" and not native:
            raise CorruptSample("decode", "float32 pixels, which data.channels=native reads")
        return image

    def _of_bands(self, found: tiff.Bands) -> Tensor:
        pixels = turned(found.pixels, found.orientation)
        count, dtype = pixels.shape[2], pixels.dtype
        if self.channels == "native":
            return from_array(pixels)
        if dtype == np.float32 or not (found.colour or count == 1):
            what = f"a TIFF of {count} bands of {dtype}, which data.channels=native reads"
            raise CorruptSample("decode", what)
        if count > 3:
            notice(_BANDS)
        if dtype == np.uint16 and (count > 1 or self.channels != "gray16"):
            notice(_LOW_BITS)
        if count > 1:
            pixels = pixels[:, :, :3] if dtype == np.uint8 else reduced(pixels[:, :, :3])
        pixels = pixels[:, :, 0] if count == 1 else pixels
        return self._convert(Image.fromarray(np.ascontiguousarray(pixels)))

    def _convert(self, image: Image.Image) -> Tensor:
        if image.mode in _COLOUR_SPACES:
            image = image.convert("RGB")
        if self.channels == "native":
            return from_array(np.asarray(_without_palette(image)))
        if self.channels == "gray16":
            return _gray16(image)
        image = _to_8_bits(image)
        if self.channels == "rgba":
            return from_array(np.asarray(image.convert("RGBA")))
        return from_array(
            np.asarray(on_white(image).convert({"rgb": "RGB", "gray": "L"}[self.channels]))
        )


def _upright(image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # the metadata is unreadable; the pixels are good
        return image


def _notice_dropped(image: Image.Image, channels: Channels) -> None:
    """Report what decoding drops from an image that is open but not loaded."""
    if image.info.get("bit_depth", 8) > 8:  # set by pillow-heif
        notice("low bits of HEIC images of more than 8 bits")
    deep = png16.is_deep(image)
    gray16 = image.mode.startswith("I;16")
    if image.format == "TIFF":
        deep = deep or (tiff.type_of(image) == "uint16" and not gray16)
        if tiff.bands_of(image) > len(image.getbands()):
            notice(_BANDS)
        tiff.notice_tags(image)
    elif image.format != "MPO" and getattr(image, "n_frames", 1) > 1:  # in MPO: previews
        notice("frames after the first")
    if deep or (gray16 and channels not in ("gray16", "native")):
        notice(_LOW_BITS)
    if channels in ("rgb", "gray", "gray16") and _has_alpha(image):
        alpha = np.asarray(image.convert("RGBA"))[:, :, 3]
        if alpha.min() < 255:
            notice("transparent pixels, laid on white")


def _has_alpha(image: Image.Image) -> bool:
    return image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info


def on_white(image: Image.Image) -> Image.Image:
    """Blend transparent pixels with white; opaque images are returned unchanged."""
    if not _has_alpha(image):
        return image
    image = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")


def _without_palette(image: Image.Image) -> Image.Image:
    """Convert palette-like images, whose stored numbers are not intensities, to intensities."""
    if image.mode in ("P", "PA"):
        return image.convert("RGBA" if _has_alpha(image) else "RGB")
    return image.convert("L") if image.mode == "1" else image


def _to_8_bits(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16"):
        return Image.fromarray(reduced(np.asarray(image)))
    return image


def _gray16(image: Image.Image) -> Tensor:
    if image.mode.startswith("I;16"):
        return from_array(np.asarray(image))
    pixels = np.asarray(on_white(_to_8_bits(image)).convert("L"))
    return from_array(pixels).float() / 255


def _webp_size(data: bytes) -> tuple[int, int] | None:
    """(width, height) from a WebP header, by the container specification."""
    if len(data) < 30 or data[:4] != b"RIFF" or data[8:12] != b"WEBP":
        return None
    form = data[12:16]
    if form == b"VP8X":
        fields = data[24:27], data[27:30]
        return int.from_bytes(fields[0], "little") + 1, int.from_bytes(fields[1], "little") + 1
    if form == b"VP8L":
        bits = int.from_bytes(data[21:25], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    sides = data[26:28], data[28:30]
    return int.from_bytes(sides[0], "little") & 0x3FFF, int.from_bytes(sides[1], "little") & 0x3FFF


def _one_line(fault: BaseException) -> str:
    text = _PLACE_IN_CODE.sub("", " ".join(str(fault).split()))
    return f"{type(fault).__name__}: {text[:160]}" if text else type(fault).__name__
