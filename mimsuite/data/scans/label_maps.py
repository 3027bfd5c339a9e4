"""Label maps: a class for every voxel of a scan, stored as a scan of whole numbers.

Class 0 is the background. :data:`UNKNOWN` marks voxels whose class is not known: they carry no loss
and are not scored. Maps are turned as scans are, and resampled to the class of the nearest voxel.
Runs in a child process and imports no torch.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mimsuite.data.local_file import Stored, reader
from mimsuite.data.scans import files
from mimsuite.data.scans.packed import open_packed, pack
from mimsuite.data.scans.volume import (
    MOST_VOXELS,
    Spacing,
    Volume,
    check_spacing,
    resampled,
    same_spacing,
)
from mimsuite.errors import CorruptSample

UNKNOWN = 255
EXTENSION = "labels.scan"
_NAMED = re.compile(r"[._-](seg|segmentation|label|labels|mask)$", re.IGNORECASE)
_FOLDER = re.compile(r"labels(tr|ts|va|val)?$", re.IGNORECASE)
_FIRST_CHANNEL = re.compile(r"_0000$")  # nnU-Net numbers the channels of a scan
_FILE = re.compile(r"\.(nii|nii\.gz|scan)$", re.IGNORECASE)


def is_label_map(path: str) -> bool:
    """Whether a file is a label map by its name, or by the folder that it is in."""
    *folders, name = path.split("/")
    named = _NAMED.search(_stem(name)) and _FILE.search(name)
    return bool(named) or any(is_label_folder(folder) for folder in folders)


def is_label_folder(name: str) -> bool:
    """Whether a folder holds label maps: ``labels``, or ``labelsTr`` as nnU-Net has it."""
    return _FOLDER.match(name) is not None


class LabelMaps:
    """Finds the label map of each scan below a folder, by its name.

    Of ``NAME.nii.gz`` it is ``NAME.label.nii.gz``, or with another of the endings of
    :func:`is_label_map`, beside it; else ``NAME.nii.gz`` in the folder ``labels`` beside it, or in
    ``labelsTr`` beside the folder ``imagesTr``.
    """

    def __init__(self, top: Path) -> None:
        self.top = top
        self._listed: dict[Path, dict[str, str]] = {}

    def of(self, path: str) -> str:
        """Path of the label map of the scan with this path below ``top``; empty: it has none."""
        scan = self.top / path
        name = _FIRST_CHANNEL.sub("", _stem(scan.name))
        beside = self._files(scan.parent, named=True)
        if name in beside:
            return str(scan.parent / beside[name])
        parent = scan.parent
        folders = [parent / "labels"]
        if parent.name.lower().startswith("images"):
            folders.append(parent.with_name("labels" + parent.name[len("images") :]))
        for folder in folders:
            if found := self._files(folder, named=False).get(name):
                return str(folder / found)
        return ""

    def _files(self, folder: Path, *, named: bool) -> dict[str, str]:
        """Name of a scan -> file name of its label map in this folder."""
        if folder not in self._listed:
            self._listed[folder] = {}
            if folder.is_dir():
                names = sorted(path.name for path in folder.iterdir() if _FILE.search(path.name))
                stems = {name: _stem(name) for name in names}
                self._listed[folder] = {
                    _NAMED.sub("", stem): name
                    for name, stem in stems.items()
                    if not named or _NAMED.search(stem)
                }
        return self._listed[folder]


def read(data: Stored, most_voxels: int = MOST_VOXELS) -> Volume:
    """A label map, uint8, RAS+, at its own spacing.

    Raises:
        CorruptSample: it cannot be read, or is no map of whole numbers from 0 to 255.
    """
    try:
        volume = files.read(data, most_voxels)
    except CorruptSample as fault:
        raise CorruptSample(fault.kind, f"its label map: {fault}") from None
    values = volume.values
    if values.min() < 0 or values.max() > UNKNOWN or np.any(values != np.rint(values)):
        raise CorruptSample(
            "label",
            f"its label map has values from {values.min():g} to {values.max():g}; classes are "
            f"whole numbers from 0 to {UNKNOWN - 1}, and {UNKNOWN} where none is known",
        )
    return Volume(values.astype(np.uint8), volume.spacing, volume.stored)


def facts(data: Stored) -> dict[str, int | float | str]:
    """The classes that occur, and the share of voxels that are not background."""
    values = read(data).values
    classes = [str(one) for one in np.unique(values) if one not in (0, UNKNOWN)]
    return {
        "voxel classes": ", ".join(classes) or "none",
        "labelled share": round(float((values > 0).mean()), 4),
    }


def store(
    data: Stored, spacing: Sequence[float] = (), voxels: str | None = None
) -> tuple[str, bytes]:
    """The packed form.

    Args:
        spacing: mm along x, y and z; zeros, or nothing: the map's own.
        voxels: the type of the scan's values; those of maps are uint8.

    Raises:
        CorruptSample: see :func:`read`.
    """
    volume = read(data)
    if any(spacing):
        volume = resampled(volume, check_spacing(spacing), nearest=True)
    return EXTENSION, pack(volume, "uint8")


def check(scan: bytes, label_map: bytes) -> None:
    """Raise a ``CorruptSample`` for a packed scan and a label map that do not fit."""
    one, other = (open_packed(reader(data)) for data in (scan, label_map))
    check_fit(one.shape, other.shape)
    if not same_spacing(one.spacing, other.spacing):
        raise CorruptSample("label", _misfit("mm", one.spacing, other.spacing))


def check_fit(scan: Sequence[int], label_map: Sequence[int]) -> None:
    """Raise a ``CorruptSample`` for a label map of another shape than its scan."""
    if tuple(scan) != tuple(label_map):
        raise CorruptSample("label", _misfit("voxels", scan, label_map))


def _misfit(unit: str, scan: Sequence[float] | Spacing, label_map: Sequence[float]) -> str:
    shown = [" x ".join(f"{side:g}" for side in sides) for sides in (label_map, scan)]
    return f"its label map is {shown[0]} {unit} and the scan {shown[1]}: they must be the same"


def _stem(name: str) -> str:
    return _FILE.sub("", name)
