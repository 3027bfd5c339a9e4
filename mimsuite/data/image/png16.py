"""PNG with several 16-bit channels, of which Pillow alone would keep only the high bytes.

Pillow's decoder runs twice, to unpack first the high bytes and then the low ones. This reads all 16
bits without another library and keeps Pillow's checks.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from PIL import Image, ImageFile

_GRAY_ALPHA = "LA;16B"
_LOW = {"RGB;16B": "RGB;16L", "RGBA;16B": "RGBA;16L", _GRAY_ALPHA: "RGBA"}


def is_deep(image: Image.Image) -> bool:
    """Whether an image that is open but not loaded is such a PNG."""
    if not isinstance(image, ImageFile.ImageFile) or image.format != "PNG" or not image.tile:
        return False
    return image.tile[0].args in _LOW


def read_deep(reopen: Callable[[], ImageFile.ImageFile]) -> np.ndarray:
    """(H, W, C) uint16, as stored.

    Args:
        reopen: opens the image again.
    """
    low, high = reopen(), reopen()
    layout = str(low.tile[0].args)
    low.tile = [tile._replace(args=_LOW[layout]) for tile in low.tile]
    pixels: np.ndarray = np.asarray(low)
    if layout == _GRAY_ALPHA:  # unpack the four bytes of a pixel unchanged
        return np.ascontiguousarray(pixels).view(">u2").astype(np.uint16)
    pixels = np.asarray(high).astype(np.uint16) << 8 | pixels
    return pixels
