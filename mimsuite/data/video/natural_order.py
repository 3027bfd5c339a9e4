"""Names in the order in which people number things: ``frame9`` before ``frame10``."""

from __future__ import annotations

import re

_NUMBER = re.compile(r"([0-9]+)")


def natural_key(name: str) -> tuple[tuple[tuple[str, int, str], ...], str]:
    """What names are sorted by where their order means time: numbers in them count as numbers.

    Example:
        >>> sorted(["10.png", "9.png", "009b.png"], key=natural_key)
        ['9.png', '009b.png', '10.png']
    """
    texts, numbers = _NUMBER.split(name)[::2], _NUMBER.split(name)[1::2]
    digits = [number.lstrip("0") for number in numbers] + [""]
    # Digits of one length sort as their numbers do, however long they are. Equal names but for
    # leading zeros are told apart by the name itself.
    parts = tuple((text, len(d), d) for text, d in zip(texts, digits, strict=True))
    return parts, name
