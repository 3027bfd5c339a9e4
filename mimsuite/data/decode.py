"""From a stored image to pixels: an allow-list of formats, limits before work, one channel layout.

JPEG goes through libjpeg-turbo (:mod:`jpeg`), nearly twice as fast as PIL and with the same colour
pixels; gray is the luma that the file stores, 0.02 grey levels from PIL's in the mean. Everything
else goes through PIL. PNG too: torchvision 0.29's PNG decoder ends the whole process on a file with
one flipped bit.
"""

from __future__ import annotations

import io
import warnings
from typing import Literal

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from mimsuite.data import jpeg
from mimsuite.data.damage import CorruptSample
from mimsuite.formats.arrays import NPY_MAGIC, npy_header

Channels = Literal["rgb", "gray", "rgba", "gray16", "native"]

IMAGE_EXTENSIONS = ("jpg", "jpeg", "png", "webp", "gif", "bmp", "tif", "tiff")
ARRAY_EXTENSIONS = ("npy",)
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
_COUNT: dict[str, int | None] = {"rgb": 3, "gray": 1, "rgba": 4, "gray16": 1, "native": None}
_NPY_TYPES = ("uint8", "uint16", "float32")


def extensions(channels: Channels) -> tuple[str, ...]:
    """File name extensions, lower case, that are read under a ``data.channels`` key."""
    return IMAGE_EXTENSIONS + ARRAY_EXTENSIONS if channels == "native" else IMAGE_EXTENSIONS


class Decoder:
    """Encoded file or array -> (C, H, W) tensor; upright by its EXIF orientation.

    Args:
        channels: ``rgb``, ``gray``, ``rgba``: uint8. Colour, gray and palette are converted into
            each other; transparent pixels are laid on white for ``rgb`` and ``gray``; 16 bits are
            reduced to 8. ``gray16``: float32 in [0, 1], keeping 16 bits. ``native``: the channels
            as stored, uint8, or float32 in [0, 1] for 16 bits; also ``.npy`` arrays (H, W) or
            (H, W, C) of uint8, uint16 or float32 (the last as they are).
        max_pixels: larger images are refused before they are decoded.
        fast: let simplejpeg decode JPEG, where it is installed and gives the same pixels.
    """

    sequences = False  # whether a folder of images may be one sample, as the frames of a video
    clouds = False  # whether text and h5 files may be samples: their content tells

    def __init__(
        self, channels: Channels = "rgb", max_pixels: int = 64_000_000, *, fast: bool = True
    ) -> None:
        self.channels, self.max_pixels, self.fast = channels, max_pixels, fast

    @property
    def extensions(self) -> tuple[str, ...]:
        """File name extensions, lower case, of what it decodes."""
        return extensions(self.channels)

    @property
    def channel_count(self) -> int | None:
        """Channels of every image; None where images say it themselves."""
        return _COUNT[self.channels]

    def __call__(self, payload: bytes | np.ndarray) -> Tensor:
        """Decode one image.

        Raises:
            CorruptSample: kind ``too-large`` or ``decode``.
        """
        if isinstance(payload, bytes) and payload.startswith(NPY_MAGIC):
            if self.channels != "native":
                raise CorruptSample("decode", "a .npy array needs data.channels=native")
            payload = _read_npy(payload, self.max_pixels)
        if isinstance(payload, np.ndarray):
            return self._of_array(payload)
        try:
            return self._decode(payload)
        except CorruptSample:
            raise
        except Exception as fault:  # decoders raise anything on damaged input
            raise CorruptSample("decode", _one_line(fault)) from None

    def _decode(self, data: bytes) -> Tensor:
        if self.channels in ("rgb", "gray", "native"):
            header = jpeg.read_header(data)
            if header is not None:
                _check_size(header.width, header.height, self.max_pixels)
                return jpeg.decode(data, header, self.channels, fast=self.fast)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of PIL, about metadata that is not used
            image = self._open(data)
            image.load()
            return self._convert(_upright(image))

    def _of_array(self, pixels: np.ndarray) -> Tensor:
        if self.channels == "native":
            return _from_array(pixels)
        if self.channels in ("gray", "rgb") and pixels.ndim == 2 and pixels.dtype == np.uint8:
            image = _from_array(pixels)
            return image if self.channels == "gray" else image.expand(3, -1, -1)
        return self._convert(Image.fromarray(pixels))

    def _open(self, data: bytes) -> Image.Image:
        """Read the header only, and refuse what would not fit in memory."""
        if (size := _webp_size(data)) is not None:  # PIL's reader takes the canvas when it opens
            _check_size(*size, self.max_pixels)
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None  # ours is checked below
        try:
            image = Image.open(io.BytesIO(data), formats=FORMATS)
        except UnidentifiedImageError:  # its message is the address of the buffer
            raise CorruptSample("decode", f"no image of {', '.join(FORMATS)}") from None
        finally:
            Image.MAX_IMAGE_PIXELS = limit
        _check_size(*image.size, self.max_pixels)
        return image

    def _convert(self, image: Image.Image) -> Tensor:
        if self.channels == "native":
            return _from_array(np.asarray(_without_palette(image)))
        if self.channels == "gray16":
            return _gray16(image)
        image = _to_8_bits(image)
        if self.channels == "rgba":
            return _from_array(np.asarray(image.convert("RGBA")))
        return _from_array(
            np.asarray(on_white(image).convert({"rgb": "RGB", "gray": "L"}[self.channels]))
        )


def _upright(image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # unreadable metadata; the pixels are sound
        return image


def _has_alpha(image: Image.Image) -> bool:
    return image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info


def on_white(image: Image.Image) -> Image.Image:
    """Transparent pixels laid on white; images without any stay as they are."""
    if not _has_alpha(image):
        return image
    image = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")


def _without_palette(image: Image.Image) -> Image.Image:
    """Images whose stored numbers are no intensities, as intensities."""
    if image.mode in ("P", "PA"):
        return image.convert("RGBA" if _has_alpha(image) else "RGB")
    return image.convert("L") if image.mode == "1" else image


def _to_8_bits(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16"):
        pixels = np.asarray(image).astype(np.uint32)
        return Image.fromarray(((pixels * 255 + 32767) // 65535).astype(np.uint8))
    if image.mode in ("I", "F"):
        raise CorruptSample("decode", "pixels of 32 bits: convert them to 16 bits or to .npy")
    return image


def _gray16(image: Image.Image) -> Tensor:
    if image.mode.startswith("I;16"):
        return _from_array(np.asarray(image))
    pixels = np.asarray(on_white(_to_8_bits(image)).convert("L"))
    return _from_array(pixels).float() / 255


def _from_array(pixels: np.ndarray) -> Tensor:
    """(H, W) or (H, W, C) -> (C, H, W); uint16 becomes float32 in [0, 1]."""
    if pixels.ndim not in (2, 3) or 0 in pixels.shape:
        raise CorruptSample("decode", f"an array of shape {pixels.shape} is no image")
    if pixels.dtype == np.uint16:
        pixels = pixels.astype(np.float32) / np.float32(65535)
    if pixels.dtype not in (np.uint8, np.float32):
        raise CorruptSample("decode", f"{pixels.dtype} pixels; known are {', '.join(_NPY_TYPES)}")
    if pixels.ndim == 2:
        pixels = pixels[:, :, None]
    # A copy: PIL's and numpy's buffers may be read-only or shared.
    return torch.from_numpy(pixels.copy()).permute(2, 0, 1)


def _read_npy(data: bytes, max_pixels: int) -> np.ndarray:
    """An array without objects, whose header is believed only after it was compared to the size."""
    shape, dtype, start = npy_header(data)
    if dtype.name not in _NPY_TYPES:
        raise CorruptSample("decode", f".npy of {dtype}; known are {', '.join(_NPY_TYPES)}")
    if len(shape) >= 2:
        _check_size(shape[1], shape[0], max_pixels)
    expected = dtype.itemsize
    for length in shape:
        expected *= length
    if expected != len(data) - start:
        raise CorruptSample("decode", f".npy header claims {expected} bytes of data, has others")
    array = np.load(io.BytesIO(data), allow_pickle=False)
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def _webp_size(data: bytes) -> tuple[int, int] | None:
    """(width, height) that a WebP header claims, by its container specification."""
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


def _check_size(width: int, height: int, max_pixels: int) -> None:
    if width * height > max_pixels:
        raise CorruptSample(
            "too-large", f"{width} x {height} pixels are more than data.max_pixels={max_pixels}"
        )


def _one_line(fault: BaseException) -> str:
    text = " ".join(str(fault).split())
    return f"{type(fault).__name__}: {text[:160]}" if text else type(fault).__name__
