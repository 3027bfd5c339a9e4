"""Image encoding, for packing."""

from __future__ import annotations

import io

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from mimsuite.data.damage import CorruptSample
from mimsuite.data.image import geometry
from mimsuite.data.image.augment import resize
from mimsuite.data.image.decode import on_white
from mimsuite.data.image.kinds import kind_of

_QUALITY = 95  # for JPEG images that must be re-encoded


def extension_of(data: bytes) -> str:
    """The extension by content, not by file name; ``npy`` for an array."""
    if data.startswith(b"\x93NUMPY"):
        return "npy"
    kind = kind_of(data)
    if kind is None:
        raise CorruptSample("decode", "no image of a known format")
    return kind


def shrink(image: Tensor, short_side: int) -> Tensor:
    """(C, H, W) -> the image with its short side at most ``short_side``, aspect ratio kept."""
    height, width = image.shape[-2:]
    if min(height, width) <= short_side:
        return image
    size = geometry.covering(height, width, (short_side, short_side))
    small = resize(image, geometry.whole(height, width), size, "bicubic")
    return small if small.dtype == torch.uint8 else small.clamp(image.min(), image.max())


def encode(image: Tensor, *, quality: int | None, jpeg: bool) -> tuple[str, bytes]:
    """(extension, bytes) of a (C, H, W) image.

    Args:
        image: uint8, or float32; float32 is stored with 16 bits if all values are in [0, 1].
        quality: JPEG quality for all images with 1 to 4 channels of 8 bits (transparent pixels are
            blended with white); None: JPEG only where ``jpeg``, else lossless.
        jpeg: whether the image came from a JPEG file.
    """
    if image.dtype != torch.uint8 and (image.min() < 0 or image.max() > 1):
        pixels = image.numpy()
    elif image.dtype != torch.uint8:
        pixels = (image * 65535).round().to(torch.int32).numpy().astype(np.uint16)
    else:
        pixels = image.numpy()
    pixels = np.ascontiguousarray(pixels.transpose(1, 2, 0))  # (H, W, C)
    channels = pixels.shape[2]
    if channels > 4 or pixels.dtype == np.float32 or (pixels.dtype == np.uint16 and channels > 1):
        stream = io.BytesIO()
        np.save(stream, pixels, allow_pickle=False)
        return "npy", stream.getvalue()
    picture = Image.fromarray(pixels[:, :, 0] if channels == 1 else pixels)
    if pixels.dtype == np.uint8 and (quality is not None or jpeg):
        return "jpg", _bytes(on_white(picture), "JPEG", quality=quality or _QUALITY)
    return "png", _bytes(picture, "PNG")


def _bytes(picture: Image.Image, form: str, **options: int) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, form, **options)
    return stream.getvalue()
