"""Read every header of a tar shard once, and accept the shard only if all of it is sound.

Python's ``tarfile`` parses the headers, but ends quietly at the first one that it cannot read: a
shard cut at a member boundary would just be shorter. So what follows the last member is looked at:
it must be the end-of-archive mark, and nothing after it.
"""

from __future__ import annotations

import io
import json
import posixpath
import tarfile
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mimsuite.data import splits
from mimsuite.data.modalities import payload_extensions
from mimsuite.data.source import MAX_SAMPLE_BYTES
from mimsuite.data.sources.label_texts import is_label
from mimsuite.data.stores import LocalShard, OpenShard, Shard
from mimsuite.data.stores.hashed import HashedFile
from mimsuite.data.unused import Unused
from mimsuite.errors import DataError

LABEL_EXTENSIONS = ("cls", "json")  # the first that is there is read
CLASSES_FILE = "classes.json"

# A member as the index holds it; sample and extension count into the tables of the shard.
MEMBER = np.dtype(
    [
        ("offset", "<u8"),
        ("size", "<u8"),
        ("crc", "<u4"),
        ("sample", "<u4"),
        ("extension", "<u4"),
        ("reserved", "<u4"),
    ]
)
_BLOCK = 512
_CHUNK = 1 << 20
_LONGEST_LABEL = 256  # bytes
_LONGEST_ID = 9  # digits, and what follows fits in 32 bits
LONGEST_JSON = 1 << 20  # bytes of a sample's .json that may hold its label
_JSON_LABELS = ("label", "cls", "class", "target")  # keys of it
_FORMATS = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstd"}
_LONGEST_CLASSES = 1 << 22  # bytes of classes.json, which may take twenty times that in memory


@dataclass
class Scan:
    """What a shard holds.

    Attributes:
        shard_bytes: size of the tar file.
        keys: of the samples, in the order of their first members.
        extensions: of the members kept: payloads and labels, lower case; others are never read.
        members: (members,) of :data:`MEMBER`, sorted by sample.
        classes: content of a ``classes.json`` at the top of the archive.
        label_names: labels that are no numbers, sorted.
        splits: samples by split, where every key begins with one (``train/00001``).
        unused: what is in it and never read, as :meth:`Unused.as_json` has it.
    """

    shard_bytes: int
    keys: list[str]
    extensions: list[str]
    members: np.ndarray
    classes: list[str] | None = None
    label_names: list[str] = field(default_factory=list)
    splits: dict[str, int] = field(default_factory=dict)
    unused: list[dict[str, Any]] = field(default_factory=list)


def scan(shard: Shard | Path) -> Scan:
    """Index a shard; reads all of it, from its beginning to its end.

    A link to a member before it is read as that member. A key without a payload, other links,
    devices and compressed members are left out and counted.

    Raises:
        NoSample: nothing in it can be read as a sample.
        DataError: naming the shard and what is wrong: compressed, unreadable header, cut member,
            no end of archive, duplicate or oversized member.
    """
    shard = LocalShard(shard) if isinstance(shard, Path) else shard
    opened = shard.open()
    try:
        return _Scanner(str(shard), opened).run()
    except OSError as fault:
        raise DataError(f"cannot read {shard}: {fault.strerror or fault}") from None
    finally:
        opened.close()


def scan_hashed(path: Path) -> tuple[Scan, str]:
    """As :func:`scan`, and the SHA-256 of the shard, in one pass over it."""
    opened = HashedFile(LocalShard(path).open())
    try:
        found = _Scanner(str(path), opened).run()
        return found, opened.sha256()
    except OSError as fault:
        raise DataError(f"cannot read {path}: {fault.strerror or fault}") from None
    finally:
        opened.close()


def split_name(name: str) -> tuple[str, str] | None:
    """WebDataset's rule: ``a/b.c.jpg`` -> key ``a/b``, extension ``c.jpg``. None for no sample."""
    folder, slash, base = name.removeprefix("./").rpartition("/")
    stem, dot, extension = base.partition(".")
    if not stem or not dot or not extension or (stem.startswith("__") and stem.endswith("__")):
        return None
    return folder + slash + stem, extension.lower()


def is_payload(extension: str) -> bool:
    """Whether a member with this extension may be decoded: ``jpg``, and ``depth.png`` too."""
    return extension.rpartition(".")[2] in payload_extensions()


def label_text(data: bytes, extension: str = "cls", longest: int = _LONGEST_LABEL) -> str:
    """The label in a ``.cls`` member, or in a ``.json`` one under a key as ``label``.

    A class id or a class name; several joined by ``;``; empty where there is none.
    """
    if extension == "cls":
        return data[:longest].decode("utf-8", "replace").strip()
    if len(data) > LONGEST_JSON:
        return ""
    try:
        content = json.loads(data)
    except (ValueError, RecursionError):
        return ""
    if not isinstance(content, dict):
        return ""
    value = next((content[key] for key in _JSON_LABELS if content.get(key) is not None), "")
    parts = value if isinstance(value, list) else [value]
    if not all(isinstance(part, str | int | float) for part in parts):
        return ""
    joined = ";".join(str(part) for part in parts) or ";"  # an empty list: known to have none
    return joined[:longest].strip()


def label_id(text: str) -> int | None:
    """The class id that a label gives as a number, -1 for none; None where it is a name."""
    if not text.removeprefix("-").isdecimal() or len(text) > _LONGEST_ID:
        return None
    return max(int(text), -1)


class NoSample(DataError):
    """A sound shard without any sample."""


class _Kept(NamedTuple):
    offset: int
    size: int
    crc: int
    key: str
    extension: str


class _Place(NamedTuple):
    offset: int
    size: int


class _Stream(io.RawIOBase):
    """A shard as the file that ``tarfile`` reads headers from."""

    def __init__(self, opened: OpenShard) -> None:
        self._opened, self._at, self._size = opened, 0, opened.size

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        self._at = start + offset
        return self._at

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        data = self._opened.pread(len(buffer), self._at)
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)


class _Buffered(io.BufferedReader):
    """Reads no more than is left: a header's claim would be allocated before it is read."""

    def __init__(self, stream: _Stream, size: int) -> None:
        super().__init__(stream)
        self._size = size

    def read(self, size: int | None = -1) -> bytes:
        left = max(0, self._size - self.tell())
        return super().read(left if size is None or size < 0 else min(size, left))


class _Scanner:
    def __init__(self, name: str, opened: OpenShard) -> None:
        self.name, self.opened = name, opened
        self.size = opened.size
        self.found: dict[str, list[str]] = {}  # every extension of every key
        self.kept: list[_Kept] = []
        self.places: dict[str, _Place] = {}  # places of members, for links to them
        self.classes: list[str] | None = None
        self.label_names: dict[str, str] = {}  # by key
        self.unused = Unused()

    def run(self) -> Scan:
        self._refuse_compressed()
        file = _Buffered(_Stream(self.opened), self.size)
        try:
            archive = tarfile.open(fileobj=file, mode="r:")  # noqa: SIM115
            while (member := archive.next()) is not None:
                archive.members = []  # type: ignore[attr-defined]  # it would keep every header
                self._take(member)
        except tarfile.TarError as fault:
            raise self._fault(f"unreadable or cut off ({fault})") from None
        self._check_end(archive.offset)
        return self._result()

    def _fault(self, what: str) -> DataError:
        shown = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in what)
        return DataError(f"shard {self.name}: {shown}")

    def _refuse_compressed(self) -> None:
        head = self.opened.pread(min(self.size, 8), 0)
        kind = next((name for mark, name in _FORMATS.items() if head.startswith(mark)), None)
        if kind is not None:
            raise self._fault(f"it is compressed ({kind}), whatever its name: unpack it to a .tar")

    def _take(self, member: tarfile.TarInfo) -> None:
        name = member.name
        if member.isdir():
            return
        place = self._place(member)
        if place is None:
            return
        if name.lower().endswith(".gz"):
            self.unused.add("compressed .gz members: pack the plain files", [name])
            return
        if name.removeprefix("./") == CLASSES_FILE:
            if place.size > _LONGEST_CLASSES:
                raise self._fault(f"{name} claims {place.size} bytes, too many")
            self.classes = self._class_names(self._read(name, place))
            return
        parts = split_name(name)
        if parts is not None:
            self._keep(name, place, *parts)
        elif not posixpath.basename(name).startswith("."):
            self.unused.add("members that belong to no sample", [name])

    def _place(self, member: tarfile.TarInfo) -> _Place | None:
        """Where the content of a member is; None for what has none."""
        name = member.name
        if member.islnk() or member.issym():
            folder = posixpath.dirname(name) if member.issym() else ""
            target = posixpath.normpath(posixpath.join(folder, member.linkname))
            if target not in self.places:
                self.unused.add("links to no member before them", [name])
            return self.places.get(target)
        if not member.isreg() or member.issparse():
            self.unused.add("devices, pipes and sparse files", [name])
            return None
        if member.size > MAX_SAMPLE_BYTES:
            raise self._fault(f"member '{name}' claims {member.size} bytes, too many")
        if member.offset_data + member.size > self.size:
            raise self._fault(f"member '{name}' is cut off")
        place = _Place(member.offset_data, member.size)
        self.places[posixpath.normpath(name)] = place
        return place

    def _keep(self, name: str, place: _Place, key: str, extension: str) -> None:
        known = self.found.setdefault(key, [])
        if extension in known:
            raise self._fault(f"member '{name}' is there twice")
        known.append(extension)
        if not is_payload(extension) and extension not in LABEL_EXTENSIONS:
            return
        data = self._read(name, place)
        if extension in LABEL_EXTENSIONS:
            text = label_text(data, extension)
            if not text and extension != "cls":
                return
            if is_label(text) and label_id(text) is None:
                self.label_names[key] = text
        self.kept.append(_Kept(*place, zlib.crc32(data), key, extension))

    def _read(self, name: str, place: _Place) -> bytes:
        data = self.opened.pread(place.size, place.offset)
        if len(data) != place.size:
            raise self._fault(f"member '{name}' is cut off")
        return data

    def _class_names(self, data: bytes) -> list[str]:
        try:
            names = json.loads(data)
        except (ValueError, RecursionError):
            names = None
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise self._fault(f"{CLASSES_FILE} is no list of names")
        return names

    def _check_end(self, end: int) -> None:
        """What follows the last member: at least two blocks of zeros, and only zeros."""
        position, last = end, min(end + 2 * _BLOCK, self.size)
        while position < self.size:
            chunk = self.opened.pread(_CHUNK, position)
            if not chunk:
                break
            if rest := chunk.lstrip(b"\0"):
                at = position + len(chunk) - len(rest)
                if at < end + _BLOCK:
                    raise self._fault(f"bad header at byte {end}")
                raise self._fault(f"data after the end of the archive, at byte {at}")
            position += len(chunk)
        if last - end < 2 * _BLOCK:
            raise self._fault(f"no end-of-archive mark at byte {end}: the file is cut off")

    def _result(self) -> Scan:
        keys = self._complete_keys()
        numbers = {key: number for number, key in enumerate(keys)}
        kept = [item for item in self.kept if item.key in numbers]
        extensions = sorted({item.extension for item in kept})
        columns = {name: number for number, name in enumerate(extensions)}
        members = np.zeros(len(kept), dtype=MEMBER)
        for column in ("offset", "size", "crc"):
            members[column] = [getattr(item, column) for item in kept]
        members["sample"] = [numbers[item.key] for item in kept]
        members["extension"] = [columns[item.extension] for item in kept]
        members = members[np.argsort(members["sample"], kind="stable")]
        counts: dict[str, int] = {}
        for key in keys:
            split = splits.split_of(key.partition("/")[0]) if "/" in key else None
            counts[split or ""] = counts.get(split or "", 0) + 1
        self._count_unused(numbers, kept, by_split="" not in counts)
        return Scan(
            shard_bytes=self.size,
            keys=keys,
            extensions=extensions,
            members=members,
            classes=self.classes,
            label_names=sorted({n for key, n in self.label_names.items() if key in numbers}),
            splits={} if "" in counts else counts,
            unused=self.unused.as_json(),
        )

    def _complete_keys(self) -> list[str]:
        """Keys that have a payload. One that has only a sample's other members, as where a
        download failed, is left out and counted."""
        whole = [key for key, found in self.found.items() if any(map(is_payload, found))]
        used = {*LABEL_EXTENSIONS, *(extension for key in whole for extension in self.found[key])}
        bare = [
            key
            for key, found in self.found.items()
            if used.intersection(found) and not any(map(is_payload, found))
        ]
        if not whole:
            there = "; ".join(self.unused.lines())
            fault = self._fault(
                "no samples with an image in it" + (there and f"; there are {there}")
            )
            raise NoSample(str(fault))
        self.unused.add("samples without an image", bare)
        for key in bare:
            del self.found[key]
        return whole

    def _count_unused(self, numbers: dict[str, int], kept: list[_Kept], by_split: bool) -> None:
        """Members beside the payloads and labels, and folders that may be meant as classes."""
        read = {(item.key, item.extension) for item in kept}
        for key, found in self.found.items():
            for extension in found:
                if (key, extension) not in read:
                    last = extension.rpartition(".")[2]
                    self.unused.add(f".{last} members", [f"{key}.{extension}"])
        folders = sorted({key.partition("/")[0] if "/" in key else "" for key in numbers})
        labelled = any(item.extension in LABEL_EXTENSIONS for item in kept)
        if len(folders) > 1 and folders[0] and not labelled and not by_split:
            what = "folders inside of shards, which are no classes there: unpack them or add .cls"
            self.unused.add(what, folders)
