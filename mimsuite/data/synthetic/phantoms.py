"""Phantoms of CT: a body of ellipsoids of known tissues; synthetic, and no likeness of anatomy.

The class says which organ is the largest. What each voxel belongs to is known: 0 air, 1 body,
2 lungs, 3 liver, 4 bones; see :func:`phantom`.
"""

from __future__ import annotations

import gzip

import numpy as np

from mimsuite.data.scans.volume import library
from mimsuite.data.synthetic.maker import Maker

LABELS = ("air", "body", "lung", "liver", "bone")
_UNITS = np.array([-1000.0, 40.0, -800.0, 110.0, 700.0])  # Hounsfield units of each label
_NOISE = 15.0  # standard deviation, in the same units
CLASSES = ("lung", "liver", "bone")
_LENGTH = 300.0  # mm that the longest side covers


def phantom(
    name: str, size: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, tuple[float, float, float]]:
    """A phantom, axes right, front, head.

    Returns:
        (X, Y, Z) int16 Hounsfield units, (X, Y, Z) uint8 labels, and mm from voxel to voxel; slices
        are up to twice as far apart as voxels within them.
    """
    step = _LENGTH / size
    spacing = (step, step, step * float(rng.uniform(1.0, 2.0)))
    shape = [
        max(4, round(_LENGTH * part / mm)) for part, mm in zip((1, 0.8, 1), spacing, strict=True)
    ]
    axes = [(np.arange(n) + 0.5) * mm for n, mm in zip(shape, spacing, strict=True)]
    points = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)  # (X, Y, Z, 3) mm
    middle = np.array([n * mm / 2 for n, mm in zip(shape, spacing, strict=True)])
    labels = np.zeros(shape, np.uint8)
    _fill(labels, points, middle, middle * [0.9, 0.85, 0.97], 1)
    for organ in (*(one for one in CLASSES if one != name), name):
        large = 1.0 if organ == name else 0.5
        for side in (-1, 1) if organ != "liver" else (1,):
            at = middle + middle * [0.42 * side, 0, 0.25] * (1 if organ != "bone" else 0.6)
            at = at + rng.uniform(-0.12, 0.12, 3) * middle
            _fill(labels, points, at, middle * rng.uniform(0.25, 0.42, 3) * large, _id(organ))
    units = _UNITS[labels] + rng.normal(0, _NOISE, shape)
    return np.rint(np.clip(units, -1024, 3071)).astype(np.int16), labels, spacing


def make(name: str, split: str, size: int, rng: np.random.Generator) -> bytes:
    """A ``.nii.gz`` file of a phantom, stored left to right reversed as scanners do (LAS)."""
    units, _, spacing = phantom(name, size, rng)
    return _reversed(units, spacing)


def make_labels(name: str, split: str, size: int, rng: np.random.Generator) -> bytes:
    """The label map of :func:`make` by the same arguments."""
    _, labels, spacing = phantom(name, size, rng)
    return _reversed(labels, spacing)


def _reversed(values: np.ndarray, spacing: tuple[float, float, float]) -> bytes:
    return nifti(values[::-1], np.diag([-spacing[0], spacing[1], spacing[2], 1.0]))


def nifti(values: np.ndarray, affine: np.ndarray) -> bytes:
    """The bytes of a ``.nii.gz`` file: the same for the same arguments."""
    image = library("nibabel").Nifti1Image(values, affine)
    image.header.set_xyzt_units("mm")
    return gzip.compress(image.to_bytes(), compresslevel=6, mtime=0)


def _id(organ: str) -> int:
    return LABELS.index(organ)


def _fill(
    labels: np.ndarray, points: np.ndarray, at: np.ndarray, radii: np.ndarray, label: int
) -> None:
    labels[(((points - at) / radii) ** 2).sum(axis=-1) < 1] = label


MAKER = Maker(CLASSES, "nii.gz", 48, 16, make)
LABELLED = Maker(CLASSES, "nii.gz", 48, 16, make, make_labels)
