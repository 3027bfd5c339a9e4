"""Samples of tar shards, read by index: any order, one ``pread`` a member."""

from __future__ import annotations

import zlib
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mimsuite.data import splits
from mimsuite.data.damage import CorruptSample
from mimsuite.data.decoder import Decoder
from mimsuite.data.local_file import Stretch
from mimsuite.data.modalities import payload_extensions
from mimsuite.data.shards.facts import ShardFacts
from mimsuite.data.shards.index import IndexHeader, ShardIndex, load_tables
from mimsuite.data.shards.scan import LABEL_EXTENSIONS, LONGEST_JSON, label_id, label_text
from mimsuite.data.source import Payload, Source
from mimsuite.data.sources.label_texts import class_ids, is_label
from mimsuite.data.stores import OpenShard, Shard
from mimsuite.errors import DataError
from mimsuite.files import allow_many_files

_OPEN_AT_ONCE = 1024  # files a process keeps open: two for each lane of the largest default
_NO_PAYLOAD = 1 << 20  # rank of extensions that are not decoded


@dataclass
class _OpenShard:
    """An open shard: its file, tables, and what is derived from them.

    ``samples`` are the rows of the tables that belong to the split; ``payloads`` and ``labels``
    the members that are read of each, -1 where there is no label; ``maps`` those with the classes
    of its voxels.
    """

    file: OpenShard
    index: ShardIndex
    samples: np.ndarray
    payloads: np.ndarray
    labels: np.ndarray
    maps: np.ndarray


class TarSource(Source):
    """Tar shards of one split.

    Args:
        shards: that hold samples of the split.
        headers: of their indexes.
        facts: what all headers say together.
        counts: (shards,) samples of each; None: as the headers say.
        key_split: the key prefix that selects samples; None: all of them.
        classes: names of the labels; None: labels are ids, or there are none.
        verify: ``crc`` compares every member read with its checksum, ``size`` does not.
        tar_labels: class id of all samples of each shard that have no label of their own.
    """

    def __init__(
        self,
        shards: list[Shard],
        headers: Sequence[IndexHeader],
        facts: ShardFacts,
        *,
        counts: np.ndarray | None = None,
        name: str,
        split: str,
        key_split: str | None,
        classes: list[str] | None,
        decoder: Decoder,
        verify: str,
        tar_labels: list[int] | None = None,
    ) -> None:
        other = class_ids(facts.label_names).other
        stored = any(name in LABEL_EXTENSIONS for name in facts.counts)
        self.key_split, self.decoder = key_split, decoder
        if counts is None:
            counts = np.array([self._count(header) for header in headers], dtype=np.int64)
        super().__init__(
            name=name,
            split=split,
            classes=None if other else classes,
            counts=counts,
            labelled=tar_labels is not None or (stored and other is None),
            decoder=decoder,
        )
        self.shards, self.headers, self.facts = shards, headers, facts
        self.fetched = any(shard.fetched for shard in shards)
        self.verify, self.tar_labels = verify, tar_labels
        self.unused.add_json(facts.unused)
        self.no_classes = other
        if other:
            self.unused.add(other, facts.label_names)
        self._ids = {name: number for number, name in enumerate(classes or [])}
        self._shards: OrderedDict[int, _OpenShard] = OrderedDict()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_shards": OrderedDict()}

    def key(self, shard: int, offset: int) -> str:
        opened = self._open(shard)
        return opened.index.keys[int(opened.samples[offset])]

    def shard_name(self, shard: int) -> str:
        return self.shards[shard].name

    def payload(self, shard: int, offset: int) -> Payload:
        opened = self._open(shard)
        return self._stored(opened, opened.payloads[offset])

    def label_map(self, shard: int, offset: int) -> Payload | None:
        opened = self._open(shard)
        member = opened.maps[offset]
        return None if member < 0 else self._stored(opened, member)

    def has_label_map(self, shard: int, offset: int) -> bool:
        return bool(self._open(shard).maps[offset] >= 0)

    def sample_bytes(self, shard: int, offset: int) -> int:
        return int(self._payload_member(shard, offset)["size"])

    def label(self, shard: int, offset: int) -> int | None:
        opened = self._open(shard)
        member = opened.labels[offset]
        if not self.labelled or member < 0:
            return None if self.tar_labels is None else self.tar_labels[shard]
        extension = opened.index.extensions[opened.index.members[member]["extension"]]
        text = label_text(self._read_member(opened, member), extension)
        if not is_label(text):
            return None
        label = label_id(text)
        if label is None:
            label = self._ids.get(text)
        if label is None:
            raise CorruptSample("label", f"'{text[:40]}' is no class id and no name of a class")
        return None if label < 0 else label

    def label_texts(self) -> Sequence[str] | None:
        """Reads the label of every sample; one that cannot be read is ""."""
        if not any(name in LABEL_EXTENSIONS for name in self.facts.counts):
            return None
        return [self._text(*self.locate(position)) for position in range(len(self))]

    def _text(self, shard: int, offset: int) -> str:
        opened = self._open(shard)
        member = opened.labels[offset]
        if member < 0:
            return ""
        extension = opened.index.extensions[opened.index.members[member]["extension"]]
        try:
            return label_text(self._read_member(opened, member), extension, LONGEST_JSON)
        except CorruptSample:  # the sample is reported when it is read
            return ""

    def close(self) -> None:
        """Close all files; they open again when needed."""
        while self._shards:
            self._shards.popitem()[1].file.close()

    # --- members ---

    def _open(self, shard: int) -> _OpenShard:
        if shard in self._shards:
            self._shards.move_to_end(shard)
            return self._shards[shard]
        if len(self._shards) >= min(_OPEN_AT_ONCE, allow_many_files() // 2):
            self._shards.popitem(last=False)[1].file.close()
        index = load_tables(self.headers[shard])
        samples, payloads = self._samples(index)
        if len(samples) != self.counts[shard]:
            raise DataError(f"the index of shard {self.shards[shard]} counts other samples than it")
        opened = _OpenShard(
            file=self.shards[shard].open(),
            index=index,
            samples=samples,
            payloads=payloads,
            labels=_members_of(index, LABEL_EXTENSIONS)[samples],
            maps=_members_of(index, (self.decoder.label_map,))[samples],
        )
        self._shards[shard] = opened
        return opened

    def _count(self, header: IndexHeader) -> int:
        """Samples of a shard that belong to the split."""
        return header.samples if self.key_split is None else header.splits[self.key_split]

    def _samples(self, index: ShardIndex) -> tuple[np.ndarray, np.ndarray]:
        """(samples,) the row of each sample of the split, and the member that is decoded."""
        rows = self._rows_of_split(index)
        return rows, _payload_members(index, self.decoder.extensions)[rows]

    def _rows_of_split(self, index: ShardIndex) -> np.ndarray:
        if self.key_split is None:
            return np.arange(len(index.keys))
        chosen = [splits.split_of(key.partition("/")[0]) == self.key_split for key in index.keys]
        return np.flatnonzero(chosen)

    def _payload_member(self, shard: int, offset: int) -> np.void:
        opened = self._open(shard)
        member: np.void = opened.index.members[opened.payloads[offset]]
        return member

    def _stored(self, opened: _OpenShard, member: int) -> Payload:
        if self.decoder.in_parts:
            start, size, *_ = opened.index.members[member].item()
            return Stretch(opened.file, start, size)
        return self._read_member(opened, member)

    def _read_member(self, opened: _OpenShard, member: int) -> bytes:
        offset, size, crc, *_ = opened.index.members[member].item()
        try:
            data = opened.file.pread(size, offset)
        except OSError as fault:
            raise CorruptSample("missing", fault.strerror or str(fault)) from None
        if len(data) != size:
            raise CorruptSample("truncated", f"{len(data)} of {size} bytes are there")
        if self.verify == "crc" and zlib.crc32(data) != crc:
            raise CorruptSample("crc", "its bytes changed since the shard was indexed")
        return data


def _payload_members(index: ShardIndex, decoded: tuple[str, ...]) -> np.ndarray:
    """(samples,) the member of each sample that is decoded: the first by rank of its extension."""
    rank = np.array([_rank(name, decoded) for name in index.extensions])
    order = np.lexsort((rank[index.members["extension"]], index.members["sample"]))
    first: np.ndarray = order[index.first[:-1]]
    return first


def _members_of(index: ShardIndex, extensions: Sequence[str]) -> np.ndarray:
    """(samples,) the member of each sample with one of these extensions, the first that it has; -1
    where there is none."""
    found = np.full(len(index.keys), -1)
    for extension in reversed(extensions):
        if extension in index.extensions:
            label = index.extensions.index(extension)
            rows = np.flatnonzero(index.members["extension"] == label)
            found[index.members["sample"][rows]] = rows
    return found


def _rank(extension: str, decoded: tuple[str, ...]) -> int:
    """What the decoder reads first; ``jpg`` before ``png``, plain ones before ``depth.png``."""
    if extension in LABEL_EXTENSIONS:
        return _NO_PAYLOAD
    detail, _, last = extension.rpartition(".")
    known = decoded.index(last) if last in decoded else 2000 + payload_extensions().index(last)
    return known + (1000 if detail else 0)
