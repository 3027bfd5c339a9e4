"""The description of a generator of synthetic samples."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

Make = Callable[[str, str, int, np.random.Generator], bytes]


@dataclass(frozen=True)
class Maker:
    """Generates synthetic samples of one modality.

    Attributes:
        classes: class names, assigned to samples in turn.
        extension: file extension.
        size: default size: pixels per side, points, or voxels along the longest side.
        smallest: smallest accepted size.
        make: (class name, split, size, generator) -> the bytes of a file.
        label_map: likewise the bytes of ``NAME.label.EXTENSION``, the classes of the same sample's
            voxels; None: there are none.
    """

    classes: tuple[str, ...]
    extension: str
    size: int
    smallest: int
    make: Make
    label_map: Make | None = None
