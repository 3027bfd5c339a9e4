"""What makes samples of one modality."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Maker:
    """Makes samples of one modality.

    Attributes:
        classes: their names; sample after sample takes the next.
        extension: of the files.
        size: the default size: pixels a side, points, or voxels along the longest side.
        smallest: a size below makes no sense.
        make: (class name, split, size, generator) -> the bytes of a file.
    """

    classes: tuple[str, ...]
    extension: str
    size: int
    smallest: int
    make: Callable[[str, str, int, np.random.Generator], bytes]
