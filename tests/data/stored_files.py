"""Stored samples that tests of several files need, as bytes, and libraries that may be missing."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np

CLOUDS = Path(__file__).with_name("furniture8_cc0.npz")
HOUSE = b"""# a square wall with a gable: a polygon of five corners, and a triangle
v 0 0 0
v 2 0 0
v 2 2 0
v 1 3 0
v 0 2 0
v 0 0 1
f 1/1/1 2//2 3 4 -2
f -6 2 \\
6
"""


def npy(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def npz(**arrays: Any) -> bytes:
    stream = io.BytesIO()
    np.savez_compressed(stream, **arrays)
    return stream.getvalue()


def array_of(stored: tuple[str, bytes]) -> np.ndarray:
    assert stored[0] == "npy"
    return np.load(io.BytesIO(stored[1]), allow_pickle=False)
