"""The binary index of a shard, ``NAME.tar.idx``: where each member lies, and its checksum.

Layout, little-endian: magic, u32 header bytes, u32 header crc, u64 body bytes, u32 body crc, u32 0;
the header (JSON, padded to 8 bytes); the body: members (32 bytes each, sorted by sample), key ends
(i64 each), keys (UTF-8). The body is mapped, not read, so loader workers share its memory.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from pydantic import TypeAdapter
from typing_extensions import TypedDict

from mimsuite.data.cache import cache_folder, write_first_possible
from mimsuite.data.shards.scan import LABEL_EXTENSIONS, MEMBER, Scan, is_payload, scan
from mimsuite.data.source import MAX_SAMPLE_BYTES
from mimsuite.data.strings import StringTable
from mimsuite.errors import DataError
from mimsuite.noise import key_of

_MAGIC = b"MIMSIDX\0"
_VERSION = 2  # 1 knew fewer endings of images, and left their members out
_PREFIX = struct.Struct("<8sIIQII")


class _UnusedKind(TypedDict):
    what: str
    count: int
    first: list[str]


@dataclass(frozen=True)
class IndexHeader:
    """What is known of a shard without mapping its tables.

    Attributes:
        counts: members by extension; empty in an index that was written before they were counted.
        unused: what is in the shard and never read, as :meth:`Unused.as_json` has it.
    """

    path: Path
    shard_bytes: int
    samples: int
    members: int
    extensions: list[str]
    classes: list[str] | None
    label_names: list[str]
    splits: dict[str, int]
    body_at: int
    body_bytes: int
    body_crc: int
    counts: dict[str, int] = field(default_factory=dict)
    unused: list[_UnusedKind] = field(default_factory=list)


_HEADER = TypeAdapter(IndexHeader)


@dataclass(frozen=True)
class ShardIndex:
    """The tables of a shard.

    Attributes:
        keys: of the samples.
        members: (members,) of ``scan.MEMBER``, sorted by sample.
        first: (samples + 1,) where each sample's members begin.
        extensions: names for ``members["extension"]``.
    """

    keys: StringTable
    members: np.ndarray
    first: np.ndarray
    extensions: list[str]


def open_index(shard: Path, *, beside: bool = True, compare: bool = True) -> IndexHeader:
    """The header of a shard's index, which is built where there is none.

    Args:
        beside: look, and write, beside the shard too and not only in the cache folder.
        compare: the size of the shard with that in the index.

    Raises:
        DataError: the shard or its index is damaged, or one was changed without the other.
    """
    for path in _places(shard, beside):
        if path.is_file():
            header = read_header(path)
            if header is not None:
                return _checked(shard, header) if compare else header
    return build_index(shard, beside=beside)


def build_index(
    shard: Path, *, beside: bool = True, look: Callable[[Path], Scan] = scan
) -> IndexHeader:
    """Scan a shard and write its index; see :func:`scan` for what is refused.

    Args:
        look: scans the shard.
    """
    path = write_first_possible(_places(shard, beside), to_bytes(look(shard)))
    header = read_header(path)
    assert header is not None
    return header


def load_tables(header: IndexHeader) -> ShardIndex:
    """Map the tables of an index.

    Raises:
        DataError: their checksum is wrong.
    """
    try:
        mapped = np.memmap(
            header.path, np.uint8, "r", offset=header.body_at, shape=(header.body_bytes,)
        )
    except (OSError, ValueError):
        raise _damaged(header.path) from None
    body = mapped.view(np.ndarray)  # a memmap is slow to slice
    if zlib.crc32(body.data) != header.body_crc:
        raise _damaged(header.path)
    cut = header.members * MEMBER.itemsize
    members = body[:cut].view(MEMBER)
    ends = body[cut : cut + 8 * header.samples].view("<i8")
    first = np.searchsorted(members["sample"], np.arange(header.samples + 1))
    keys = StringTable(body[cut + 8 * header.samples :], ends)
    tables = ShardIndex(keys, members, first, header.extensions)
    if not _tables_fit(header, tables):
        raise _damaged(header.path)
    return tables


def member_counts(header: IndexHeader) -> dict[str, int]:
    """Members by extension, counted where an older index does not say it."""
    if header.counts:
        return header.counts
    numbers = np.bincount(load_tables(header).members["extension"]).tolist()
    return dict(zip(header.extensions, numbers, strict=False))


def _places(shard: Path, beside: bool) -> list[Path]:
    name = f"{shard.name}.idx"
    cached = index_folder() / f"{key_of(str(shard.resolve())):016x}-{name}"
    return [shard.with_name(name), cached] if beside else [cached]


def index_folder() -> Path:
    """Where indexes lie that cannot lie beside their shards."""
    return cache_folder() / "index"


def to_bytes(found: Scan) -> bytes:
    """The content of an index file."""
    keys = StringTable.of(found.keys)
    body = found.members.tobytes() + keys.ends.astype("<i8").tobytes() + keys.blob.tobytes()
    header = json.dumps(
        {
            "version": _VERSION,
            "shard_bytes": found.shard_bytes,
            "samples": len(found.keys),
            "members": len(found.members),
            "extensions": found.extensions,
            "classes": found.classes,
            "label_names": found.label_names,
            "splits": found.splits,
            "counts": {
                name: int((found.members["extension"] == number).sum())
                for number, name in enumerate(found.extensions)
            },
            "unused": found.unused,
        }
    ).encode()
    header += b" " * (-(len(header) + _PREFIX.size) % 8)
    prefix = _PREFIX.pack(_MAGIC, len(header), zlib.crc32(header), len(body), zlib.crc32(body), 0)
    return prefix + header + body


def read_header(path: Path) -> IndexHeader | None:
    """The header; None where another version of the suite wrote it.

    Raises:
        DataError: it is damaged.
    """
    try:
        with path.open("rb") as file:
            magic, length, crc, body_bytes, body_crc, _ = _PREFIX.unpack(file.read(_PREFIX.size))
            text = file.read(length)
    except OSError as fault:
        raise DataError(f"cannot read {path}: {fault.strerror}") from None
    except struct.error:
        raise _damaged(path) from None
    if magic != _MAGIC or len(text) != length or zlib.crc32(text) != crc:
        raise _damaged(path)
    place = {"path": path, "body_at": _PREFIX.size + length}
    try:
        known = json.loads(text)
        if known.pop("version") != _VERSION:
            return None
        header = _HEADER.validate_python(
            {**known, **place, "body_bytes": body_bytes, "body_crc": body_crc}
        )
    except (ValueError, RecursionError, AttributeError, KeyError, TypeError):
        raise _damaged(path) from None
    if not _plausible(header):
        raise _damaged(path)
    return header


def _plausible(header: IndexHeader) -> bool:
    """Whether its numbers fit together; a foreign index may say anything."""
    least = header.members * MEMBER.itemsize + 8 * header.samples
    return (
        0 < header.samples <= header.members
        and least <= header.body_bytes
        and all(name in LABEL_EXTENSIONS or is_payload(name) for name in header.extensions)
        and (not header.splits or sum(header.splits.values()) == header.samples)
        and all(count > 0 for count in header.splits.values())
    )


def _tables_fit(header: IndexHeader, tables: ShardIndex) -> bool:
    """Whether every number in the tables is one of a sample, member or byte that is there."""
    members, ends = tables.members, tables.keys.ends
    size, samples = members["size"], members["sample"]
    return bool(
        (members["offset"] <= header.shard_bytes).all()
        and (size <= header.shard_bytes - members["offset"]).all()
        and (size <= MAX_SAMPLE_BYTES).all()
        and (members["extension"] < len(header.extensions)).all()
        and (samples[1:] >= samples[:-1]).all()
        and samples[-1] < header.samples
        and (tables.first[1:] > tables.first[:-1]).all()
        and ends[0] >= 0
        and (ends[1:] >= ends[:-1]).all()
        and ends[-1] <= len(tables.keys.blob)
    )


def _checked(shard: Path, header: IndexHeader) -> IndexHeader:
    try:
        size = shard.stat().st_size
    except OSError as fault:
        raise DataError(f"cannot read shard {shard}: {fault.strerror}") from None
    if size != header.shard_bytes:
        raise DataError(
            f"shard {shard} has {size} bytes, its index {header.path.name} says "
            f"{header.shard_bytes}: it is damaged, or was replaced (then run `mimsuite data index`)"
        )
    return header


def _damaged(path: Path) -> DataError:
    return DataError(
        f"index {path} is damaged: run `mimsuite data index` to build it anew, or remove the file"
    )
