"""Patch features and per-pixel truth of a whole split, computed once and kept on disk.

Letters: N samples, B batch, D width, (h, w) grid of patches, (H, W) label resolution.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from mimsuite.batch import Batch
from mimsuite.data.dense import DenseViews
from mimsuite.data.source import Source
from mimsuite.data.views import Views
from mimsuite.errors import DataError
from mimsuite.evaluate.features import normalized_batches
from mimsuite.tokens import patchify

if TYPE_CHECKING:
    from mimsuite.config import Resolved

_LARGEST = 6e4  # largest value that float16 can store

Encode = Callable[[Batch], dict[str, Tensor]]


@dataclass(frozen=True)
class DenseTables:
    """Features and truth of a split; the arrays are memory-mapped files.

    Attributes:
        maps: name -> (N, D, h, w) float16, or rows of another shape that the encoder returned.
        truth: ``segments`` (N, H, W) uint8 and ``depth`` (N, H, W) float32, if present.
        positions: (N,) positions of the samples in the source; corrupt samples are missing.
        keys: N sample names.
    """

    maps: dict[str, np.ndarray]
    truth: dict[str, np.ndarray]
    positions: list[int]
    keys: list[str]

    def __len__(self) -> int:
        return len(self.keys)


def extract_dense(
    encode: Encode,
    source: Source,
    resolved: Resolved,
    device: torch.device,
    folder: Path,
    views: Views | None = None,
) -> DenseTables:
    """Encode every sample once.

    Args:
        encode: normalised batch -> name -> (B, D, h, w), or rows of any other shape.
        device: device of ``encode``.
        folder: new folder for the tables.
        views: views of the samples; ``None``: images with their truth.

    Raises:
        DataError: no sample could be read.
    """
    folder.mkdir(parents=True)
    tables: dict[str, np.ndarray] = {}
    positions: list[int] = []
    keys: list[str] = []

    def put(name: str, rows: Tensor, dtype: type[np.generic]) -> None:
        if name not in tables:
            shape = (len(source), *rows.shape[1:])
            path = folder / f"{len(tables)}.npy"
            tables[name] = np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=shape)
        tables[name][len(keys) : len(keys) + len(rows)] = rows.numpy()

    views = views or DenseViews(resolved.recipe)
    with torch.inference_mode():
        for batch in normalized_batches(source, resolved, device, views=views):
            for name, rows in encode(batch).items():
                put(f"map {name}", rows.float().clamp(-_LARGEST, _LARGEST).cpu(), np.float16)
            for name, dtype in (("segments", np.uint8), ("depth", np.float32)):
                if name in batch.views:
                    put(name, batch.views[name], dtype)
            positions += batch.index.tolist()
            keys += batch.keys
    if not keys:
        raise DataError(f"{source.name} has no sample in split '{source.split}'")
    found = {name: table[: len(keys)] for name, table in tables.items()}
    maps = {name[4:]: table for name, table in found.items() if name.startswith("map ")}
    truth = {name: table for name, table in found.items() if not name.startswith("map ")}
    return DenseTables(maps, truth, positions, keys)


def patch_pixels(batch: Batch, patch: int) -> dict[str, Tensor]:
    """``pixels`` (B, p * p * C, h, w): the raw pixels of each patch."""
    images = batch.image
    grid = (images.shape[2] // patch, images.shape[3] // patch)
    return {"pixels": patchify(images, patch).transpose(1, 2).unflatten(2, grid)}
