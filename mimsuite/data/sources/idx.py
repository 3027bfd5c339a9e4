"""Images in MNIST's IDX format: two files per split, plain or gzip.

``train-images-idx3-ubyte`` holds all images of a split as one uint8 array, (N, H, W) or
(N, H, W, C); ``train-labels-idx1-ubyte`` holds class ids. Names of test files begin with ``t10k``.
"""

from __future__ import annotations

import gzip
import math
import os
import re
import zlib
from collections.abc import Collection, Iterator
from pathlib import Path

import numpy as np

from mimsuite.data import splits
from mimsuite.data.decoder import Decoder
from mimsuite.data.source import Source
from mimsuite.errors import DataError

_NAME = re.compile(r"(?P<split>.+)-(?P<kind>images|labels)[-.]idx(?P<axes>\d)-ubyte(\.gz)?")
_SPLITS = {"t10k": "test"}
_UNSIGNED_BYTES = b"\0\0\x08"
_MOST_BYTES = 1 << 33  # limit of an array; more is a mistake or an attack


class IdxSource(Source):
    """A split in memory; each image is a shard of one sample."""

    def __init__(
        self, images: np.ndarray, labels: np.ndarray, *, name: str, split: str, decoder: Decoder
    ) -> None:
        super().__init__(
            name=name,
            split=split,
            classes=[str(label) for label in range(int(labels.max()) + 1)] if len(labels) else None,
            counts=np.ones(len(images), dtype=np.int64),
            labelled=len(labels) > 0,
            decoder=decoder,
        )
        self._images, self._labels = images, labels

    def key(self, shard: int, offset: int) -> str:
        return f"{shard:06d}"

    def shard_name(self, shard: int) -> str:
        return self.name

    def label(self, shard: int, offset: int) -> int | None:
        return int(self._labels[shard]) if self.labelled else None

    def payload(self, shard: int, offset: int) -> np.ndarray:
        image: np.ndarray = self._images[shard]
        return image

    def sample_bytes(self, shard: int, offset: int) -> int:
        return int(self._images[shard].nbytes)

    def labels(self) -> np.ndarray:
        found = self._labels.astype(np.int64)
        return found if self.labelled else np.full(len(self), -1)


def speaks_of(path: Path) -> bool:
    """Whether a folder holds IDX files of images."""
    return bool(_files(path))


def splits_in(path: Path, decoder: Decoder) -> Collection[str] | None:
    """The splits of a folder; None if it holds no IDX files."""
    return set(_files(path)) or None


def _files(folder: Path) -> dict[str, dict[str, Path]]:
    """Split -> its ``images`` and optional ``labels`` file; empty without IDX files."""
    found: dict[str, dict[str, Path]] = {}
    if not folder.is_dir():
        return {}
    for file in sorted(os.listdir(folder)):
        if name := _NAME.fullmatch(file):
            stem = name["split"]
            split = _SPLITS.get(stem) or splits.split_of(stem) or stem
            found.setdefault(split, {})[name["kind"]] = folder / file
    return {split: files for split, files in found.items() if "images" in files}


def open_set(folder: Path, split: str, decoder: Decoder, name: str) -> IdxSource:
    """Open a split of a folder of IDX files.

    Raises:
        UserError: no such split.
        DataError: a file is damaged, or images and labels differ in number.
    """
    known = _files(folder)
    split = splits.choose(name, split, known)
    files = known[split]
    images = read_idx(files["images"])
    if images.ndim not in (3, 4):
        raise DataError(f"{files['images']}: {images.ndim} axes; images have 3, or 4 with channels")
    labels = read_idx(files["labels"]) if "labels" in files else np.empty(0, np.uint8)
    if "labels" in files and labels.shape != images.shape[:1]:
        raise DataError(
            f"{files['labels']} has {len(labels)} labels, {files['images'].name} has "
            f"{len(images)} images"
        )
    source = IdxSource(images, labels, name=name, split=split, decoder=decoder)
    used = {path.name for one in known.values() for path in one.values()}
    source.unused.add("files that are no IDX", _others(folder, used))
    return source


def read_idx(path: Path) -> np.ndarray:
    """The array of an IDX file of unsigned bytes.

    Raises:
        DataError: the file is no such IDX file, or its header does not match its length.
    """
    opener = gzip.open if path.suffix == ".gz" else open
    try:
        with opener(path, "rb") as file:
            head = file.read(4)
            if head[:3] != _UNSIGNED_BYTES:
                raise DataError(f"{path}: no IDX file of unsigned bytes")
            shape = tuple(int(n) for n in np.frombuffer(file.read(4 * head[3]), ">u4"))
            size = math.prod(shape)
            if len(shape) != head[3] or not 0 < size <= _MOST_BYTES:
                raise DataError(f"{path}: its header claims an array of {shape}")
            data = file.read(size + 1)
    except (OSError, EOFError, zlib.error) as fault:
        raise DataError(f"{path}: cannot be read ({fault})") from None
    if len(data) != size:
        raise DataError(f"{path}: {len(data)} bytes of data, its header claims {size}")
    return np.frombuffer(data, np.uint8).reshape(shape)


def _others(folder: Path, used: set[str]) -> Iterator[str]:
    return (path.name for path in sorted(folder.iterdir()) if path.name not in used)
