"""Samples of tar shards, read by index: any order, one `pread` a member."""

from __future__ import annotations

import os
import zlib
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mimsuite.data import splits
from mimsuite.data.damage import CorruptSample
from mimsuite.data.decode import Decoder
from mimsuite.data.shards.index import IndexHeader, ShardIndex, load_tables, open_index
from mimsuite.data.shards.manifest import FILE_NAME, Manifest
from mimsuite.data.shards.names import expand, refuse_compressed, shard_files
from mimsuite.data.shards.scan import LABEL_EXTENSION, PAYLOAD_EXTENSIONS, label_id, label_text
from mimsuite.data.source import Source
from mimsuite.errors import DataError

_OPEN_AT_ONCE = 256  # files a process keeps open
_NO_PAYLOAD = 1 << 20  # rank of extensions that are not decoded


@dataclass
class _OpenShard:
    """An open shard: its file, tables, and what is derived from them.

    ``samples`` are the rows of the tables that belong to the split; ``rank`` orders extensions by
    preference, where a sample has several.
    """

    descriptor: int
    index: ShardIndex
    samples: np.ndarray
    rank: np.ndarray
    label_extension: int


class TarSource(Source):
    """Tar shards of one split.

    Args:
        paths: shards that hold samples of the split.
        headers: of their indexes.
        key_split: the key prefix that selects samples; None: all of them.
        verify: ``crc`` compares every member read with its checksum, ``size`` does not.
    """

    def __init__(
        self,
        paths: list[Path],
        headers: list[IndexHeader],
        *,
        name: str,
        split: str,
        key_split: str | None,
        classes: list[str] | None,
        decoder: Decoder,
        verify: str,
    ) -> None:
        samples = [h.samples if key_split is None else h.splits[key_split] for h in headers]
        super().__init__(
            name=name,
            split=split,
            classes=classes,
            counts=np.array(samples, dtype=np.int64),
            labelled=any(LABEL_EXTENSION in header.extensions for header in headers),
            decoder=decoder,
        )
        self.paths, self.headers = paths, headers
        self.key_split, self.verify = key_split, verify
        self._ids = {name: number for number, name in enumerate(classes or [])}
        self._shards: OrderedDict[int, _OpenShard] = OrderedDict()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_shards": OrderedDict()}

    def key(self, shard: int, offset: int) -> str:
        opened = self._open(shard)
        return opened.index.keys[int(opened.samples[offset])]

    def shard_name(self, shard: int) -> str:
        return self.paths[shard].name

    def payload(self, shard: int, offset: int) -> bytes:
        return self._read_member(shard, self._payload_member(shard, offset))

    def sample_bytes(self, shard: int, offset: int) -> int:
        return int(self._payload_member(shard, offset)["size"])

    def label(self, shard: int, offset: int) -> int | None:
        opened = self._open(shard)
        members = self._members(opened, offset)
        found = members[members["extension"] == opened.label_extension]
        if not len(found):
            return None
        text = label_text(self._read_member(shard, found[0]))
        label = self._ids.get(text) if label_id(text) is None else label_id(text)
        if label is None:
            raise CorruptSample("label", f"'{text[:40]}' is no class id and no name of a class")
        return None if label < 0 else label

    def close(self) -> None:
        """Close all files; they open again when needed."""
        while self._shards:
            os.close(self._shards.popitem()[1].descriptor)

    # --- members ---

    def _open(self, shard: int) -> _OpenShard:
        if shard in self._shards:
            self._shards.move_to_end(shard)
            return self._shards[shard]
        if len(self._shards) >= _OPEN_AT_ONCE:
            os.close(self._shards.popitem(last=False)[1].descriptor)
        index = load_tables(self.headers[shard])
        try:
            descriptor = os.open(self.paths[shard], os.O_RDONLY)
        except OSError as fault:
            raise DataError(f"cannot read shard {self.paths[shard]}: {fault.strerror}") from None
        names = index.extensions
        opened = _OpenShard(
            descriptor=descriptor,
            index=index,
            samples=self._rows_of_split(index),
            rank=np.array([_rank(name) for name in names]),
            label_extension=names.index(LABEL_EXTENSION) if LABEL_EXTENSION in names else -1,
        )
        self._shards[shard] = opened
        return opened

    def _rows_of_split(self, index: ShardIndex) -> np.ndarray:
        if self.key_split is None:
            return np.arange(len(index.keys))
        chosen = [splits.split_of(key.partition("/")[0]) == self.key_split for key in index.keys]
        return np.flatnonzero(chosen)

    def _members(self, opened: _OpenShard, offset: int) -> np.ndarray:
        row = int(opened.samples[offset])
        return opened.index.members[opened.index.first[row] : opened.index.first[row + 1]]

    def _payload_member(self, shard: int, offset: int) -> np.void:
        opened = self._open(shard)
        members = self._members(opened, offset)
        return members[int(opened.rank[members["extension"]].argmin())]

    def _read_member(self, shard: int, member: np.void) -> bytes:
        size = int(member["size"])
        try:
            data = os.pread(self._open(shard).descriptor, size, int(member["offset"]))
        except OSError as fault:
            raise CorruptSample("missing", fault.strerror or str(fault)) from None
        if len(data) != size:
            raise CorruptSample("truncated", f"{len(data)} of {size} bytes are there")
        if self.verify == "crc" and zlib.crc32(data) != member["crc"]:
            raise CorruptSample("crc", "its bytes changed since the shard was indexed")
        return data


def _rank(extension: str) -> int:
    """``jpg`` before ``png``, and plain extensions before ``depth.png``."""
    if extension == LABEL_EXTENSION:
        return _NO_PAYLOAD
    detail, _, last = extension.rpartition(".")
    return PAYLOAD_EXTENSIONS.index(last) + (1000 if detail else 0)


# --- from a path to a source ---


@dataclass(frozen=True)
class _ShardSet:
    """Shards of a set, by split; the key None holds shards whose names tell no split."""

    by_split: dict[str | None, list[Path]]
    manifest: Manifest | None = None


def shard_splits(spec: str, *, beside: bool = True) -> set[str]:
    """Splits of a shard set: told by sub-folders, file names or keys; empty where by none."""
    found = _find(spec)
    if None not in found.by_split:
        return {split for split in found.by_split if split is not None}
    return _key_splits(_headers(found.by_split[None], found.manifest, beside))


def holds_shards(folder: Path) -> bool:
    """Whether a folder is a shard set: it, or a sub-folder that is a split, has ``*.tar`` files."""
    return bool(_folder_shards(folder))


def open_shards(
    spec: str, split: str, decoder: Decoder, verify: str, name: str, *, beside: bool = True
) -> TarSource:
    """A split of a folder of shards, a single ``.tar`` or a brace pattern.

    Args:
        beside: indexes may be written beside the shards.

    Raises:
        UserError: no such split, or a pattern that names no local files.
        DataError: a shard is missing, damaged, or not as ``index.json`` says.
    """
    found = _find(spec)
    key_split, shards = None, found.by_split.get(None)
    if shards is None:
        split = splits.choose(name, split, [s for s in found.by_split if s is not None])
        shards = found.by_split[split]
        headers = _headers(shards, found.manifest, beside)
    else:
        headers = _headers(shards, found.manifest, beside)
        existing = _key_splits(headers)
        split = splits.choose(name, split, existing)
        key_split = split if existing else None
    pairs = [
        (path, header)
        for path, header in zip(shards, headers, strict=True)
        if key_split is None or header.splits.get(key_split)
    ]
    return TarSource(
        [path for path, _ in pairs],
        [header for _, header in pairs],
        name=name,
        split=split,
        key_split=key_split,
        classes=_classes(headers, found, beside),
        decoder=decoder,
        verify=verify,
    )


def find_shards(spec: str) -> list[Path]:
    """All shards of a set, of every split."""
    return [path for paths in _find(spec).by_split.values() for path in paths]


def _find(spec: str) -> _ShardSet:
    folder = Path(spec)
    if folder.is_dir():
        by_split = _folder_shards(folder)
        if not by_split:
            raise DataError(f"{spec}: no .tar shards in this folder")
        manifest = Manifest.read(folder)
        if manifest is not None:
            here = {path.name for paths in by_split.values() for path in paths}
            if missing := sorted(set(manifest.by_name) - here):
                raise DataError(
                    f"{spec}: {len(missing)} shards that {FILE_NAME} lists are missing, the "
                    f"first is {missing[0]}"
                )
        return _ShardSet(by_split, manifest)
    paths = [folder] if folder.exists() else expand(spec)
    missing_paths = [path for path in paths if not path.is_file()]
    if missing_paths:
        raise DataError(
            f"{len(missing_paths)} of {len(paths)} shards of '{spec}' are missing, the first is "
            f"{missing_paths[0]}"
        )
    for path in paths:
        refuse_compressed(path)
    if len(set(paths)) < len(paths):
        raise DataError(f"'{spec}' names a shard twice")
    listed = Manifest.read(paths[0].parent)
    if listed is not None and not all(path.name in listed.by_name for path in paths):
        listed = None  # an index of other shards, which happen to lie in the same folder
    return _ShardSet(_by_name(paths), listed)


def _folder_shards(folder: Path) -> dict[str | None, list[Path]]:
    if paths := shard_files(folder):
        return _by_name(paths)
    parts: dict[str | None, list[Path]] = {}
    for part in sorted(folder.iterdir()):
        split = splits.split_of(part.name)
        if split and part.is_dir() and (paths := shard_files(part)):
            parts[split] = paths
    return parts


def _by_name(paths: list[Path]) -> dict[str | None, list[Path]]:
    """Shards by the split in their names; all under None unless every name tells one."""
    parts: dict[str | None, list[Path]] = {}
    for path in paths:
        parts.setdefault(splits.split_in(path.stem), []).append(path)
    return {None: paths} if None in parts else parts


def _headers(paths: list[Path], manifest: Manifest | None, beside: bool) -> list[IndexHeader]:
    headers = []
    for path in paths:
        if manifest is not None:
            manifest.check(path)
        header = open_index(path, beside=beside)
        if manifest is not None:
            manifest.check(path, samples=header.samples)
        headers.append(header)
    return headers


def _key_splits(headers: list[IndexHeader]) -> set[str]:
    """Splits told by keys; only where every key of every shard tells one."""
    if not all(header.splits for header in headers):
        return set()
    return {split for header in headers for split in header.splits}


def _classes(headers: list[IndexHeader], found: _ShardSet, beside: bool) -> list[str] | None:
    """Names of the classes: listed in ``index.json`` or ``classes.json``, else those in labels."""
    if found.manifest is not None and found.manifest.classes is not None:
        return found.manifest.classes
    listed = next((header.classes for header in headers if header.classes is not None), None)
    if listed is not None or not any(header.label_names for header in headers):
        return listed
    # Ids must mean the same in every split, also where one lacks a class.
    every = [path for paths in found.by_split.values() for path in paths]
    known = _headers(every, found.manifest, beside)
    return sorted({name for header in known for name in header.label_names})
