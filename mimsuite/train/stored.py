"""Tensors of a checkpoint, read from mapped files when they are asked for.

Nothing is held: what was read is a view of the file, which several processes of a host share, and
a file is let go of and mapped anew now and then, so that its pages do not add up in this process.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import EllipsisType
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from mimsuite.cluster.sharding import Rows

_HELD_BYTES = 2**25  # read of a file, until it is mapped anew


class Stored(Mapping[str, Tensor]):
    """Tensors by name.

    Args:
        folder: of the files.
        prefix: of the names in the files.
        files: by name, those whose pieces make up the tensor, put together along the first axis.
    """

    def __init__(self, folder: Path, prefix: str, files: Mapping[str, Sequence[str]]) -> None:
        self._prefix, self._files = prefix, files
        names = dict.fromkeys(file for pieces in files.values() for file in pieces)
        self._open = {name: _File(folder / name) for name in names}

    @classmethod
    def of_file(cls, path: Path) -> Stored:
        """All tensors of a file; none where it is not there."""
        if not path.exists():
            return cls(path.parent, "", {})
        with safe_open(path, "pt") as file:
            return cls(path.parent, "", {name: [path.name] for name in file.keys()})  # noqa: SIM118

    def entry(self, name: str) -> StoredTensor:
        """A tensor of which nothing is read yet."""
        return StoredTensor(
            [self._open[file] for file in self._files[name]], f"{self._prefix}{name}"
        )

    def __getitem__(self, name: str) -> Tensor:
        return self.entry(name)[...]

    def __iter__(self) -> Iterator[str]:
        return iter(self._files)

    def __len__(self) -> int:
        return len(self._files)


class StoredTensor:
    """A tensor in a file, or in several, cut along its first axis."""

    def __init__(self, files: Sequence[_File], key: str) -> None:
        self._files, self._key = files, key
        self._shapes = [file.shape(key) for file in files]

    @property
    def shape(self) -> torch.Size:
        first = self._shapes[0]
        if len(self._shapes) == 1:
            return torch.Size(first)
        return torch.Size([sum(shape[0] for shape in self._shapes), *first[1:]])

    def __getitem__(self, rows: slice | EllipsisType) -> Tensor:
        """All of it, or rows of it; only their bytes are read."""
        if isinstance(rows, EllipsisType):
            pieces = [file.read(self._key) for file in self._files]
            return pieces[0] if len(pieces) == 1 else torch.cat(pieces)
        start, stop, _ = rows.indices(self.shape[0])
        pieces, at = [], 0
        for file, shape in zip(self._files, self._shapes, strict=True):
            first, last = max(start - at, 0), min(stop - at, shape[0])
            if first < last:
                pieces.append(file.read(self._key, slice(first, last)))
            at += shape[0]
        if not pieces:
            return self._files[0].read(self._key, slice(0, 1))[:0]
        return pieces[0] if len(pieces) == 1 else torch.cat(pieces)


class _File:
    def __init__(self, path: Path) -> None:
        self._path = path
        self._mapped: Any = None
        self._read = 0

    def shape(self, key: str) -> list[int]:
        shape: list[int] = self._file().get_slice(key).get_shape()
        return shape

    def read(self, key: str, rows: slice | None = None) -> Tensor:
        file = self._file()
        tensor: Tensor = file.get_tensor(key) if rows is None else file.get_slice(key)[rows]
        self._read += tensor.nbytes
        return tensor

    def _file(self) -> Any:
        if self._mapped is None or self._read > _HELD_BYTES:
            self._mapped, self._read = safe_open(self._path, "pt"), 0
        return self._mapped


def unread(tensors: Mapping[str, Tensor], name: str) -> Rows | None:
    """A tensor of a mapping by its name, unread where it is stored; None where there is none."""
    if name not in tensors:
        return None
    return tensors.entry(name) if isinstance(tensors, Stored) else tensors[name]
