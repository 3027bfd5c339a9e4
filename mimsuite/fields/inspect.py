"""Inspection of a stored grid: statistics, and images of three slices.

Letters: (X, Y, Z) voxels.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from mimsuite.data.array_files import read_npz
from mimsuite.data.volume import files as grids
from mimsuite.errors import CorruptSample, DataError, UserError
from mimsuite.fields.check import facts_of
from mimsuite.fields.sample import Grid
from mimsuite.targets.radiance import opacity

_BINS = 10
_SIDE = 384  # smallest length of an image's longer side in pixels
_OCCUPIED = 0.01


def inspect_grid(
    file: Path, density_kind: str | None = None, delta: float = 0.01, slices: Path | None = None
) -> dict[str, Any]:
    """Statistics of a stored grid.

    Args:
        density_kind, delta: used where the file does not contain them.
        slices: folder for three images, the middle slice of each axis.

    Raises:
        DataError: the file is no radiance grid.
        UserError: the kind of density is unknown.
    """
    try:
        data = file.read_bytes()
        stored = grids.read(data)
        arrays = read_npz(data, "fiubU", grids.MOST_BYTES)
    except OSError as fault:
        raise DataError(f"cannot read {file}: {fault.strerror}") from None
    except CorruptSample as fault:
        raise DataError(f"{file}: {fault}") from None
    values: np.ndarray = stored.values.astype(np.float32)
    kind = stored.density_kind or density_kind
    if stored.values.dtype == np.uint8:
        values, kind = values / 255, "alpha"
    if kind is None:
        raise UserError(f"{file} does not say what its density is: give --density log or linear")
    sides = np.array(values.shape[:3])
    box = np.stack([arrays.get("bbox_min", np.zeros(3)), arrays.get("bbox_max", sides - 1.0)])
    grid = Grid(values, box, kind, stored.delta or delta)
    alpha = opacity(torch.from_numpy(values[..., 3]), kind, grid.delta).numpy()
    counts, _ = np.histogram(alpha, bins=_BINS, range=(0, 1))
    facts = facts_of(grid) | {
        "opacity_histogram": [round(float(share), 4) for share in counts / alpha.size],
        "up_guess": guess_up(alpha),
        "boxes": None if stored.boxes is None else len(stored.boxes),
        "labels": None if stored.labels is None else sorted(map(int, np.unique(stored.labels))),
    }
    if slices is not None:
        facts["slices"] = [str(path) for path in _write_slices(values, alpha, slices, file.stem)]
    return facts


def guess_up(alpha: np.ndarray) -> str:
    """The likely up direction, such as ``z`` or ``-y``; ``?`` for an empty grid.

    The outermost layer with the most occupied voxels is taken for the floor.
    """
    full = alpha > _OCCUPIED
    shares = {
        name: float(full.take(at, axis).mean())
        for axis, letter in enumerate("xyz")
        for name, at in ((letter, 0), (f"-{letter}", -1))
    }
    best = max(shares, key=lambda name: (shares[name], name == "z"))
    return best if shares[best] > 0 else "?"


def _write_slices(values: np.ndarray, alpha: np.ndarray, folder: Path, name: str) -> list[Path]:
    """Write the middle slice of each axis on white, enlarged to ``_SIDE``; the last axis is up."""
    from PIL import Image

    paths = []
    folder.mkdir(parents=True, exist_ok=True)
    for axis, letter in enumerate("xyz"):
        at = alpha.shape[axis] // 2
        colour, seen = values[..., :3].take(at, axis), alpha.take(at, axis)[..., None]
        cut = np.clip(np.nan_to_num(colour), 0, 1) * seen + 1 - seen  # (A, B, 3)
        pixels = (cut.transpose(1, 0, 2)[::-1] * 255).round().astype(np.uint8)
        times = max(1, -(-_SIDE // max(pixels.shape[:2])))
        picture = Image.fromarray(pixels.repeat(times, 0).repeat(times, 1))
        paths.append(folder / f"{name}-{letter}.png")
        picture.save(paths[-1])
    return paths
