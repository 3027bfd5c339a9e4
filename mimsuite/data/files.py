"""Files as samples: a folder of images, with or without class sub-folders, or a list of files."""

from __future__ import annotations

import csv
import os
import re
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mimsuite.data import splits
from mimsuite.data.damage import CorruptSample
from mimsuite.data.decode import Decoder
from mimsuite.data.source import MAX_SAMPLE_BYTES, Source
from mimsuite.data.strings import StringTable
from mimsuite.data.unused import Unused
from mimsuite.errors import DataError, UserError
from mimsuite.paths import expand_path

LIST_EXTENSIONS = (".txt", ".csv", ".tsv")
_LITTER = ("thumbs.db", "desktop.ini")  # of file managers
_FROM_ELSEWHERE = re.compile(r"~\w*/|\$\{?\w+\}?/", re.ASCII)  # ~/a.jpg, $DATA/a.jpg
_PATH_COLUMNS = ("path", "file", "filename", "image")


@dataclass(frozen=True)
class Listing:
    """Files of one split.

    Attributes:
        paths: relative to a root, or absolute, in source order.
        labels: class ids, -1 = none.
        classes: names of the ids.
    """

    paths: Sequence[str]
    labels: Sequence[int]
    classes: list[str] | None


class FileSource(Source):
    """Each file is a shard of one sample; its key is its path below the root."""

    def __init__(
        self, root: Path, listing: Listing, *, name: str, split: str, decoder: Decoder
    ) -> None:
        labels = np.asarray(listing.labels, dtype=np.int64)
        super().__init__(
            name=name,
            split=split,
            classes=listing.classes,
            counts=np.ones(len(listing.paths), dtype=np.int64),
            labelled=bool((labels >= 0).any()),
            decoder=decoder,
        )
        self.root, self._paths, self._labels = root, StringTable.of(listing.paths), labels

    def key(self, shard: int, offset: int) -> str:
        return self._paths[shard]

    def shard_name(self, shard: int) -> str:
        return self.name

    def label(self, shard: int, offset: int) -> int | None:
        label = int(self._labels[shard])
        return None if label < 0 else label

    def payload(self, shard: int, offset: int) -> bytes:
        try:
            with open(self.root / self._paths[shard], "rb", opener=_open_at_once) as file:
                status = os.fstat(file.fileno())
                if not stat.S_ISREG(status.st_mode):
                    raise CorruptSample("missing", "it is a device, pipe or folder, and no file")
                if status.st_size > MAX_SAMPLE_BYTES:
                    raise CorruptSample("too-large", f"more than {MAX_SAMPLE_BYTES} bytes")
                return file.read()
        except OSError as fault:
            raise CorruptSample("missing", fault.strerror or str(fault)) from None

    def sample_bytes(self, shard: int, offset: int) -> int:
        try:
            return (self.root / self._paths[shard]).stat().st_size
        except OSError:
            return 0

    def labels(self) -> np.ndarray:
        return self._labels.copy()


def _open_at_once(path: str, flags: int) -> int:
    """Open, without waiting where it is a pipe that nobody writes to."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


# --- folders ---


def folder_splits(root: Path, known: tuple[str, ...]) -> dict[str, Path]:
    """Sub-folders that are splits: ``{"train": root/train, "test": root/test}``.

    Two of train, val and test make splits of all sub-folders; one alone does if no other folder
    with images lies beside it. Otherwise sub-folders are classes, whatever their names.
    """
    folders = [Path(entry.path) for entry in _entries(root) if entry.is_dir()]
    named = [folder for folder in folders if splits.split_of(folder.name)]
    if not named:
        return {}
    full = [folder for folder in folders if next(walk(folder, known), None) is not None]
    named = [folder for folder in full if folder in named]
    if len(named) < 2 and (not named or len(full) > 1):
        return {}
    return {splits.split_of(folder.name) or folder.name: folder for folder in full}


def open_folder(root: Path, split: str, decoder: Decoder, name: str) -> FileSource:
    """A folder of images; a sub-folder is a class unless images lie beside it.

    Raises:
        UserError: no such split.
        DataError: no image file.
    """
    known = decoder.extensions
    parts = folder_splits(root, known)
    split = splits.choose(name, split, parts)
    # All splits are listed: ids must mean the same in every split, also where one lacks a class.
    found = {part: sorted(walk(folder, known)) for part, folder in (parts or {split: root}).items()}
    top, paths = parts.get(split, root), found[split]
    unused = _unused_files(top, known)
    if not paths:
        looked_for = ", ".join(f".{extension}" for extension in known)
        kind = "image " if "jpg" in known else ""
        there = f"; there are {'; '.join(unused.lines())}" if unused else ""
        raise DataError(f"{name}: no {kind}files below {top} (looked for {looked_for}){there}")
    labels, classes = [-1] * len(paths), None
    if all("/" in path for path in paths):
        classes = sorted({_first(path) for part in found.values() for path in part if "/" in path})
        ids = {folder: index for index, folder in enumerate(classes)}
        labels = [ids[_first(path)] for path in paths]
    listing = Listing(paths, labels, classes)
    source = FileSource(top, listing, name=name, split=split, decoder=decoder)
    source.unused.update(unused)
    return source


def _unused_files(top: Path, known: tuple[str, ...]) -> Unused:
    """Files below a folder that are no samples, by their ending."""
    unused = Unused()
    for path in sorted(walk(top)):
        ending = ending_of(path)
        if ending not in known and path.rpartition("/")[2].lower() not in _LITTER:
            unused.add(f".{ending} files" if ending else "files without an ending", [path])
    return unused


def _first(path: str) -> str:
    return path.split("/", 1)[0]


def ending_of(path: str) -> str:
    """``a/B.JPG`` -> ``jpg``; empty where there is none."""
    name = path.rpartition("/")[2]
    return name.rpartition(".")[2].lower() if "." in name else ""


def walk(root: Path, known: tuple[str, ...] | None = None) -> Iterator[str]:
    """Paths below ``root``, with ``/``, of files with a known extension; None: of all files.

    Hidden files and folders are left out. Follows links to folders, each folder once.
    """
    seen: set[tuple[int, int]] = set()
    pending = [(root, "")]
    while pending:
        folder, prefix = pending.pop()
        status = folder.stat()
        if (status.st_dev, status.st_ino) in seen:
            continue
        seen.add((status.st_dev, status.st_ino))
        for entry in _entries(folder):
            if entry.is_dir():
                pending.append((Path(entry.path), f"{prefix}{entry.name}/"))
            elif known is None or ending_of(entry.name) in known:
                yield prefix + entry.name


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as found:
            return sorted(
                (entry for entry in found if not entry.name.startswith(".")),
                key=lambda entry: entry.name,
            )
    except OSError as fault:
        raise DataError(f"cannot list {folder}: {fault.strerror}") from None


# --- lists ---


def list_splits(file: Path) -> set[str]:
    """Splits that a list's ``split`` column names; empty where it has no such column."""
    return {row.split for row in _rows(file) if row.split}


def open_list(file: Path, split: str, decoder: Decoder, name: str) -> FileSource:
    """A list file: ``.txt`` with a path a line and maybe a tab and a label, ``.csv`` and ``.tsv``
    with the columns path and label, or a header naming ``path``, ``label`` and ``split``.

    Paths are relative to the list's folder. Whole numbers are class ids; other labels are names.

    Raises:
        UserError: no such split.
        DataError: an empty list, or a path without a file.
    """
    rows = _rows(file)
    split = splits.choose(name, split, {row.split for row in rows if row.split})
    names, classes = _class_ids(rows)
    chosen = [row for row in rows if row.split in ("", split)]
    if not chosen:
        raise DataError(f"{name}: the list is empty")
    missing = [row.path for row in chosen if not (file.parent / row.path).is_file()]
    if missing:
        raise DataError(
            f"{name}: {len(missing)} of {len(chosen)} listed files do not exist, the first is "
            f"{file.parent / missing[0]}"
        )
    labels = [names[row.label] if row.label else -1 for row in chosen]
    listing = Listing([row.path for row in chosen], labels, classes)
    return FileSource(file.parent, listing, name=name, split=split, decoder=decoder)


@dataclass(frozen=True)
class _Row:
    path: str
    label: str = ""
    split: str = ""

    def __post_init__(self) -> None:
        if _FROM_ELSEWHERE.match(self.path):
            object.__setattr__(self, "path", expand_path(self.path))


def _rows(file: Path) -> list[_Row]:
    try:
        text = file.read_text(encoding="utf-8-sig", errors="surrogateescape")
    except OSError as fault:
        raise DataError(f"cannot read {file}: {fault.strerror}") from None
    lines = [line for line in text.splitlines() if line.strip()]
    if file.suffix == ".txt":
        cells = [line.split("\t") for line in lines]
        return [_Row(*(part.strip() for part in line[:2])) for line in cells]
    return _table_rows(file, list(csv.reader(lines, dialect=_dialect(file))))


def _dialect(file: Path) -> type[csv.Dialect]:
    return csv.excel_tab if file.suffix == ".tsv" else csv.excel


def _table_rows(file: Path, cells: list[list[str]]) -> list[_Row]:
    if not cells:
        return []
    header = [cell.strip().lower() for cell in cells[0]]
    columns = {"path": 0, "label": 1}
    if header[0] in _PATH_COLUMNS or "path" in header:
        columns = {("path" if n in _PATH_COLUMNS else n): i for i, n in enumerate(header)}
        cells = cells[1:]

    def cell(row: list[str], column: str) -> str:
        index = columns.get(column, len(row))
        return row[index].strip() if index < len(row) else ""

    rows = [
        _Row(cell(row, "path"), cell(row, "label"), _canonical(cell(row, "split"))) for row in cells
    ]
    empty = next((number for number, row in enumerate(rows) if not row.path), None)
    if empty is not None:
        raise DataError(f"{file}: row {empty + 1} names no file")
    return rows


def _canonical(split: str) -> str:
    return splits.split_of(split) or split


def _class_ids(rows: list[_Row]) -> tuple[dict[str, int], list[str] | None]:
    """Label text -> class id, over all splits, and the names of the ids."""
    texts = sorted({row.label for row in rows if row.label})
    if not texts:
        return {}, None
    if all(text.isdecimal() for text in texts):
        ids = {text: int(text) for text in texts}
        if max(ids.values()) > 1_000_000:
            raise UserError(f"class id {max(ids.values())} is no id: count classes from 0")
        return ids, [str(index) for index in range(max(ids.values()) + 1)]
    return {text: index for index, text in enumerate(texts)}, texts
