"""Natural sort order: ``frame9`` before ``frame10``."""

from __future__ import annotations

import re

_NUMBER = re.compile(r"([0-9]+)")


def natural_key(name: str) -> tuple[tuple[tuple[str, int, str], ...], str]:
    """Sort key for names that contain numbers, such as frames: numbers compare by value.

    Example:
        >>> sorted(["10.png", "9.png", "009b.png"], key=natural_key)
        ['9.png', '009b.png', '10.png']
    """
    texts, numbers = _NUMBER.split(name)[::2], _NUMBER.split(name)[1::2]
    digits = [number.lstrip("0") for number in numbers] + [""]
    # Digits of equal length sort like their values, at any length. The name itself comes last, to
    # order names that differ only in leading zeros.
    parts = tuple((text, len(d), d) for text, d in zip(texts, digits, strict=True))
    return parts, name
