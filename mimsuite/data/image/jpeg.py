"""JPEG decoding by libjpeg-turbo, and a header parser that takes a few microseconds.

The default decoder is torchvision's. simplejpeg (extra ``fast``) has a newer libjpeg-turbo and
copies less. It is used only if its pixels are identical, which each process checks once on small
images of every common subsampling. torchvision still decodes images with an EXIF rotation and
files that simplejpeg refuses.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.io import ImageReadMode, decode_jpeg

_START_OF_IMAGE, _START_OF_SCAN, _APP1 = b"\xff\xd8", 0xDA, 0xE1
# SOF0 to SOF15, without the other markers in that range: DHT, JPG and DAC.
_START_OF_FRAME = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_MODES = {"rgb": ImageReadMode.RGB, "gray": ImageReadMode.GRAY}

Decode = Callable[[bytes, str], Tensor]


class JpegHeader(NamedTuple):
    """Stored size in pixels, before EXIF rotation; 1 or 3 channels."""

    width: int
    height: int
    channels: int
    exif: bool


def read_header(data: bytes) -> JpegHeader | None:
    """The header of an 8-bit gray or colour JPEG; None for anything else, or if damaged."""
    if not data.startswith(_START_OF_IMAGE):
        return None
    at, end, exif, frame = 2, len(data) - 10, False, None
    while at < end and data[at] == 0xFF:
        marker, length = data[at + 1], data[at + 2] << 8 | data[at + 3]
        if marker == _START_OF_SCAN:
            return None if frame is None else JpegHeader(*frame, exif)
        if marker in _START_OF_FRAME:
            precision, channels = data[at + 4], data[at + 9]
            height, width = data[at + 5] << 8 | data[at + 6], data[at + 7] << 8 | data[at + 8]
            if frame or precision != 8 or channels not in (1, 3) or not (width and height):
                return None
            frame = width, height, channels
        elif marker < 0xC4 or 0xD0 <= marker <= 0xD9 or length < 2:
            return None
        elif marker == _APP1:
            exif = True
        at += 2 + length
    return None


def decode(data: bytes, header: JpegHeader, channels: str, *, fast: bool = True) -> Tensor:
    """(C, H, W) uint8, upright; a view of (H, W, C) memory.

    Args:
        channels: ``rgb``, ``gray``, or ``native`` for the stored channels.
        fast: use simplejpeg where possible; the pixels are the same.

    Raises:
        RuntimeError: libjpeg cannot decode it.
    """
    if channels == "native":
        channels = "gray" if header.channels == 1 else "rgb"
    if fast and not header.exif and (decoder := fast_decoder()) is not None:
        try:
            return decoder(data, channels)
        except ValueError:
            pass  # simplejpeg also refuses some valid files: leave them to torchvision
    return by_torchvision(data, channels)


def by_torchvision(data: bytes, channels: str) -> Tensor:
    """Decode by torchvision, the default decoder."""
    encoded = torch.frombuffer(bytearray(data), dtype=torch.uint8)
    decoded = decode_jpeg(encoded, mode=_MODES[channels], apply_exif_orientation=True)
    assert isinstance(decoded, Tensor)
    return decoded


@cache
def fast_decoder() -> Decode | None:
    """simplejpeg, if it is installed and equals torchvision's decoder in every pixel."""
    try:
        import simplejpeg
    except ImportError:
        return None

    def by_simplejpeg(data: bytes, channels: str) -> Tensor:
        return torch.from_numpy(simplejpeg.decode_jpeg(data, channels)).permute(2, 0, 1)

    try:
        equal = all(
            torch.equal(by_simplejpeg(data, channels), by_torchvision(data, channels))
            for data in _trial_images()
            for channels in _MODES
        )
    except (ValueError, RuntimeError):
        return None
    return by_simplejpeg if equal else None


def _trial_images() -> list[bytes]:
    """Noise images of odd sizes in 4:4:4, 4:2:2, 4:2:0 and gray, sequential and progressive."""
    noise = np.random.default_rng(0).integers(0, 256, (37, 45, 3), dtype=np.uint8)
    made = []
    for pixels in (noise, noise[:, :, 0]):
        for subsampling in range(3 if pixels.ndim == 3 else 1):
            for progressive in (False, True):
                stream = io.BytesIO()
                Image.fromarray(pixels).save(
                    stream, "JPEG", quality=85, subsampling=subsampling, progressive=progressive
                )
                made.append(stream.getvalue())
    return made
