"""Conversion of the scenes published by NeRF-RPN and NeRF-MAE to self-describing files.

The published files are ``features/SCENE.npz``, flat or (X, Y, Z, 4), which do not name their kind
of density; ``obb/SCENE.npy`` (G, 7) or ``aabb/SCENE.npy`` (G, 6) in voxels of the z-up grid; and a
split file with the arrays ``train_scenes``, ``val_scenes`` and ``test_scenes``. Grids of
instant-ngp's fork are y-up and hold log density; those of ScanNet are z-up and hold linear density.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from mimsuite.data.array_files import read_npy, read_npz
from mimsuite.data.volume import files as grids
from mimsuite.errors import CorruptSample, DataError, UserError
from mimsuite.files import write_atomic

_TO_Z_UP = (2, 0, 1)  # permutation of axes from y-up (x, y, z) to z-up (z, x, y)
_SPLITS = ("train", "val", "test")
_KINDS = "fiubU"
_SPLIT_BYTES = 1 << 26
Density = Literal["log", "linear", "alpha"]
Up = Literal["y", "z"]


@dataclass(frozen=True)
class Conversion:
    """Facts about the published files that they do not contain.

    Attributes:
        density_kind: kind of density in the last channel.
        delta: length over which light is absorbed.
        up: the axis that points up.
        boxes, labels: folders with ``SCENE.npy``; labels are (X, Y, Z) of the z-up grid.
    """

    density_kind: Density
    delta: float = 0.01
    up: Up = "z"
    boxes: Path | None = None
    labels: Path | None = None


def convert_scenes(
    source: Path, out: Path, conversion: Conversion, split: Path | None = None
) -> dict[str, int]:
    """Convert each scene of a folder, or a single file, to ``out`` or ``out/SPLIT``.

    Returns:
        split -> number of scenes; the key is ``all`` without a split file.

    Raises:
        UserError: nothing to convert, or ``out`` exists and is not empty.
        DataError: a file cannot be read, or a scene has no boxes or labels.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out} is there already and not empty: name a new folder")
    written: dict[str, int] = {}
    for name, file in _chosen(source, split):
        try:
            content = converted(file, conversion)
        except CorruptSample as fault:
            raise DataError(f"{file}: {fault}") from None
        folder = out / name if name else out
        folder.mkdir(parents=True, exist_ok=True)
        write_atomic(folder / file.name, content)
        written[name or "all"] = written.get(name or "all", 0) + 1
    return written


def converted(file: Path, conversion: Conversion) -> bytes:
    """One scene as a self-describing ``.npz``.

    Raises:
        CorruptSample: it is no radiance grid, or its boxes and labels do not fit.
        DataError: a file cannot be read.
    """
    data = _read(file)
    values = grids.read(data).values
    known = read_npz(data, _KINDS, grids.MOST_BYTES)
    if values.dtype == np.uint8 and conversion.density_kind != "alpha":
        raise CorruptSample("decode", "uint8 values are opacity, not density: give --density alpha")
    arrays: dict[str, Any] = {}
    for name in ("bbox_min", "bbox_max"):
        if name in known:
            arrays[name] = known[name][list(_TO_Z_UP)] if conversion.up == "y" else known[name]
    if conversion.up == "y":
        values = values.transpose(*_TO_Z_UP, 3)
    arrays |= {
        "rgbsigma": values,
        "resolution": np.array(values.shape[:3]),
        "density_kind": np.str_(conversion.density_kind),
        "delta": np.float32(conversion.delta),
        "up": np.str_("z"),
        "schema": np.int64(1),
    }
    for name, folder in (("boxes", conversion.boxes), ("labels", conversion.labels)):
        if folder is not None:
            beside = folder / f"{file.stem}.npy"
            arrays[name] = read_npy(_read(beside), "fiu", grids.MOST_BYTES)
    stream = io.BytesIO()
    np.savez_compressed(stream, **arrays)
    content = stream.getvalue()
    grids.read(content)  # checks that boxes and labels fit
    return content


def _chosen(source: Path, split: Path | None) -> Iterator[tuple[str, Path]]:
    """(split or "", file) of each scene."""
    files = sorted(source.glob("*.npz")) if source.is_dir() else [source]
    if not files or not files[0].is_file():
        raise UserError(f"{source}: no .npz file there")
    if split is None:
        yield from (("", file) for file in files)
        return
    by_name = {file.stem: file for file in files}
    try:
        lists = read_npz(_read(split), "U", _SPLIT_BYTES)
    except CorruptSample as fault:
        raise DataError(f"{split}: {fault}; a split file holds arrays of names") from None
    for part in _SPLITS:
        for name in map(str, lists.get(f"{part}_scenes", np.array([], dtype=str)).ravel()):
            if name not in by_name:
                raise DataError(f"{split} names the scene '{name}', which is not in {source}")
            yield part, by_name[name]


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as fault:
        raise DataError(f"cannot read {file}: {fault.strerror}") from None
