"""Decoding of masks and depth images: PNG only, size checked first."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
from PIL import Image

from mimsuite.errors import CorruptSample

IGNORE = 255  # value of pixels without a class in a decoded mask
_MASKS = ("L", "P", "1")


def decode_mask(
    data: bytes, classes: int, shift: int, ignored: Sequence[int], max_pixels: int
) -> np.ndarray:
    """(H, W) uint8 class ids, :data:`IGNORE` for unlabelled; raises ``CorruptSample``.

    Args:
        data: a gray or palette PNG.
        classes: number of classes, at most 255.
        shift: subtracted from the stored values to give class ids.
        ignored: stored values that stand for no class.
    """
    image = _opened(data, max_pixels)
    if image.mode not in _MASKS:
        raise CorruptSample("decode", f"a mask of mode {image.mode}: gray or palette is expected")
    stored = _pixels(image).astype(np.int64)
    nothing = np.isin(stored, list(ignored))
    found = stored - shift
    wrong = ~nothing & ((found < 0) | (found >= classes))
    if wrong.any():
        raise CorruptSample("label", f"value {stored[wrong][0]} in a mask of {classes} classes")
    return np.where(nothing, IGNORE, found).astype(np.uint8)


def decode_depth(data: bytes, unit: float, max_pixels: int) -> np.ndarray:
    """(H, W) float32 metres, 0 = unknown, from a 16-bit PNG; raises ``CorruptSample``."""
    image = _opened(data, max_pixels)
    if not image.mode.startswith("I"):
        raise CorruptSample("decode", f"depth of mode {image.mode}: a PNG of 16 bits is expected")
    return (_pixels(image).astype(np.float64) * unit).astype(np.float32)


def _opened(data: bytes, max_pixels: int) -> Image.Image:
    try:
        image = Image.open(io.BytesIO(data), formats=("PNG",))
    except Exception as fault:  # decoders raise many types on damaged input
        raise CorruptSample("decode", f"no PNG: {type(fault).__name__}") from None
    if image.width * image.height > max_pixels:
        raise CorruptSample(
            "too-large",
            f"{image.width} x {image.height} pixels are more than data.max_pixels={max_pixels}",
        )
    return image


def _pixels(image: Image.Image) -> np.ndarray:
    try:
        return np.asarray(image)
    except Exception as fault:
        raise CorruptSample("decode", f"{type(fault).__name__}: {fault}") from None
