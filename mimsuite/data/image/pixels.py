"""Arrays as images: checks of dtype, layout, size, and NaN."""

from __future__ import annotations

import io

import numpy as np
import torch
from torch import Tensor

from mimsuite.data.array_files import npy_header
from mimsuite.data.damage import CorruptSample
from mimsuite.data.image.kinds import PIXEL_TYPES, refused_type

_PATCH = 16  # pixels; training images are never this low with this many channels


def turned(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """(H, W, C) rotated upright by an EXIF orientation, 1 to 8."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return pixels[:, ::-1] if orientation in (2, 3, 6, 7) else pixels


def reduced(pixels: np.ndarray) -> np.ndarray:
    """uint16 -> uint8, rounded."""
    return ((pixels.astype(np.uint32) * 255 + 32767) // 65535).astype(np.uint8)


def from_array(pixels: np.ndarray) -> Tensor:
    """(H, W) or (H, W, C) -> a (C, H, W) copy; uint16 becomes float32 in [0, 1].

    Raises:
        CorruptSample: an unsupported shape or dtype, or float32 that is not finite.
    """
    if pixels.ndim not in (2, 3) or 0 in pixels.shape:
        raise CorruptSample("decode", f"an array of shape {pixels.shape} is no image")
    if pixels.dtype == np.uint16:
        pixels = pixels.astype(np.float32) / np.float32(65535)
    elif pixels.dtype == np.float32:
        _check_finite(pixels)
    elif pixels.dtype != np.uint8:
        raise CorruptSample("decode", refused_type(pixels.dtype))
    if pixels.ndim == 2:
        pixels = pixels[:, :, None]
    # Copy: PIL's and numpy's buffers may be read-only or shared.
    return torch.from_numpy(pixels.copy()).permute(2, 0, 1)


def read_npy(data: bytes, max_pixels: int) -> np.ndarray:
    """The array of a ``.npy`` file; the header is checked against the file size first.

    Raises:
        CorruptSample: kind ``too-large`` or ``decode``.
    """
    shape, dtype, start = npy_header(data)
    if dtype.name not in PIXEL_TYPES:
        raise CorruptSample("decode", f".npy of {refused_type(dtype)}")
    if len(shape) >= 2:
        check_size(shape[1], shape[0], max_pixels)
    if _is_channels_first(shape):
        raise CorruptSample(
            "decode",
            f"an array {shape} looks like (C, H, W), and is read as (H, W, C): store "
            "np.moveaxis(array, 0, -1)",
        )
    expected = dtype.itemsize
    for length in shape:
        expected *= length
    if expected != len(data) - start:
        raise CorruptSample(
            "decode", f".npy header claims {expected} bytes of data, the file has another number"
        )
    array: np.ndarray = np.load(io.BytesIO(data), allow_pickle=False)
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def _check_finite(pixels: np.ndarray) -> None:
    finite = int(np.isfinite(pixels).sum())
    if finite < pixels.size:
        odd = pixels.size - finite
        raise CorruptSample("not-finite", f"{odd} of {pixels.size} values are NaN or infinite")


def _is_channels_first(shape: tuple[int, ...]) -> bool:
    """Guess (C, H, W): an image of few rows and many channels is less likely."""
    return len(shape) == 3 and 0 < shape[0] < _PATCH <= min(shape[1:])


def check_size(width: int, height: int, max_pixels: int) -> None:
    """Raise ``CorruptSample`` for an image larger than ``max_pixels``."""
    if width * height > max_pixels:
        raise CorruptSample(
            "too-large", f"{width} x {height} pixels are more than data.max_pixels={max_pixels}"
        )
