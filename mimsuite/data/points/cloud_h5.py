"""Clouds in ``.h5`` files, the format of ScanObjectNN and of ModelNet40 with 2,048 points.

Datasets are ``data`` (N, P, 3), optionally ``normal`` of the same shape, and ``label`` (N,). File
names contain ``train`` or ``test``; files whose names differ only in that and in a final number
form one set.
"""

from __future__ import annotations

import io
import os
import re
from pathlib import Path
from typing import Any

import numpy as np

from mimsuite.data import splits
from mimsuite.data.damage import CorruptSample
from mimsuite.data.decoder import Decoder
from mimsuite.data.source import Source
from mimsuite.errors import DataError, UserError

H5_EXTENSIONS = (".h5", ".hdf5")
_SPLIT = re.compile(r"(train|val|test)(ing|idation)?")
_NUMBER = re.compile(r"\d+$")


def h5_files(path: Path) -> list[Path]:
    """The ``.h5`` files of a folder; for a single file, all files of its set."""
    if path.is_dir():
        return sorted(file for file in path.iterdir() if file.suffix in H5_EXTENSIONS)
    if path.suffix not in H5_EXTENSIONS:
        return []
    return [file for file in h5_files(path.parent) if _set_of(file) == _set_of(path)]


def h5_splits(path: Path) -> set[str]:
    """The splits named in the file names; ``train`` if none is named."""
    return {_split_of(file) for file in _one_set(path)}


def open_h5(path: Path, split: str, decoder: Decoder, name: str) -> H5Clouds:
    """Open a split of the set; class names come from ``shape_names.txt`` beside it.

    Raises:
        UserError: no such split, several sets, or h5py is not installed.
        DataError: a file has no clouds.
    """
    files = _one_set(path)
    split = splits.choose(name, split, {_split_of(file) for file in files})
    names = files[0].with_name("shape_names.txt")
    classes = names.read_text(encoding="utf-8").split() if names.is_file() else None
    chosen = [file for file in files if _split_of(file) == split]
    return H5Clouds(chosen, classes, name=name, split=split, decoder=decoder)


class H5Clouds(Source):
    """Each file is a shard; a sample is one row, returned as the bytes of a ``.npy`` file."""

    def __init__(
        self,
        files: list[Path],
        classes: list[str] | None,
        *,
        name: str,
        split: str,
        decoder: Decoder,
    ) -> None:
        self._files = files
        self._open: dict[int, Any] = {}
        self._owner = os.getpid()
        labels = [_labels(file, self._file(shard)) for shard, file in enumerate(files)]
        super().__init__(
            name=name,
            split=split,
            classes=classes,
            counts=np.array([len(found) for found in labels], dtype=np.int64),
            labelled=any((found >= 0).any() for found in labels),
            decoder=decoder,
        )
        self._labels = labels
        used = ("data", "label", "normal")
        for file, content in zip(files, map(self._file, range(len(files))), strict=True):
            other = [f"{file.name}:{key}" for key in content if key not in used]
            self.unused.add("datasets of h5 files beside data, normal and label", other)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_open": {}}

    def key(self, shard: int, offset: int) -> str:
        return f"{self._files[shard].stem}/{offset:06d}"

    def shard_name(self, shard: int) -> str:
        return self._files[shard].name

    def label(self, shard: int, offset: int) -> int | None:
        label = int(self._labels[shard][offset])
        return None if label < 0 else label

    def labels(self) -> np.ndarray:
        return np.concatenate(self._labels)

    def payload(self, shard: int, offset: int) -> bytes:
        content = self._file(shard)
        names = [name for name in ("data", "normal") if name in content]
        try:
            table = np.concatenate([content[name][offset] for name in names], axis=1)
        except (OSError, ValueError) as fault:
            raise CorruptSample("decode", str(fault)) from None
        stream = io.BytesIO()
        np.save(stream, table, allow_pickle=False)
        return stream.getvalue()

    def sample_bytes(self, shard: int, offset: int) -> int:
        data = self._file(shard)["data"]
        return int(data.dtype.itemsize * np.prod(data.shape[1:]))

    def _file(self, shard: int) -> Any:
        """The open file; each process opens its own, because h5py handles cannot be shared."""
        if self._owner != os.getpid():
            self._owner, self._open = os.getpid(), {}
        if shard not in self._open:
            path = self._files[shard]
            try:
                self._open[shard] = _h5py().File(path, "r")
            except OSError as fault:
                raise DataError(f"cannot read {path}: {fault}") from None
        return self._open[shard]


def _labels(file: Path, content: Any) -> np.ndarray:
    """(N,) int64 labels, -1 = unlabelled; checks first that the file holds clouds."""
    data = content.get("data")
    shape: tuple[int, ...] = getattr(data, "shape", ())
    if len(shape) != 3 or shape[2] != 3 or data.dtype.kind != "f":
        raise DataError(f"{file}: no clouds: a dataset 'data' (N, P, 3) of floats is needed")
    if "label" not in content:
        return np.full(len(data), -1, dtype=np.int64)
    labels = np.asarray(content["label"]).reshape(-1)
    if len(labels) != len(data) or labels.dtype.kind not in "iu":
        raise DataError(f"{file}: its 'label' is not one whole number a cloud")
    return labels.astype(np.int64)


def _one_set(path: Path) -> list[Path]:
    files = h5_files(path)
    sets = sorted({_set_of(file) for file in files})
    if len(sets) > 1:
        first = [next(file.name for file in files if _set_of(file) == one) for one in sets]
        raise UserError(
            f"{path} holds {len(sets)} sets of .h5 files: name one file, which stands for its "
            f"set: {', '.join(first)}"
        )
    return files


def _set_of(file: Path) -> str:
    return _SPLIT.sub("", _NUMBER.sub("", file.stem), count=1)


def _split_of(file: Path) -> str:
    match = _SPLIT.search(file.stem)
    return match.group(1) if match else "train"


def _h5py() -> Any:
    try:
        import h5py
    except ImportError:
        raise UserError(".h5 files need h5py: pip install 'mimsuite[points]'") from None
    return h5py
