"""Files as samples: a folder of images, with or without class subfolders."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from mimsuite.data import splits
from mimsuite.data.damage import CorruptSample
from mimsuite.data.decoder import Decoder
from mimsuite.data.image.kinds import kind_of, mend_of
from mimsuite.data.local_file import LocalFile
from mimsuite.data.source import MAX_SAMPLE_BYTES, Payload, Source
from mimsuite.data.strings import StringTable
from mimsuite.data.unused import Unused
from mimsuite.errors import DataError

_RUN_MARKS = frozenset({"metrics.jsonl", "events.jsonl", "checkpoints"})
_LITTER = ("thumbs.db", "desktop.ini")  # left by file managers


@dataclass(frozen=True)
class Listing:
    """The files of one split.

    Attributes:
        paths: relative to a root, or absolute, in source order.
        labels: class ids, -1 = unlabelled.
        classes: class names, indexed by id.
    """

    paths: Sequence[str]
    labels: Sequence[int]
    classes: list[str] | None


class FileSource(Source):
    """Each file is a shard of one sample; its key is its path below the root.

    Attributes:
        max_bytes: size limit for files that are loaded whole.
    """

    max_bytes = MAX_SAMPLE_BYTES

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
        self.texts: StringTable | None = None  # label texts, if there are any

    def key(self, shard: int, offset: int) -> str:
        return self._paths[shard]

    def shard_name(self, shard: int) -> str:
        return self.name

    def label(self, shard: int, offset: int) -> int | None:
        label = int(self._labels[shard])
        return None if label < 0 else label

    def payload(self, shard: int, offset: int) -> Payload:
        if self.decoder.in_place:
            path = self.root / self._paths[shard]
            _check_file(path)
            return LocalFile(os.path.abspath(path))
        return self.load(shard)

    def load(self, shard: int) -> bytes:
        """Load the whole file; raises CorruptSample."""
        try:
            with open(self.root / self._paths[shard], "rb", opener=_open_at_once) as file:
                if _check_file(file.fileno()) > self.max_bytes:
                    raise CorruptSample("too-large", f"more than data.max_bytes={self.max_bytes}")
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

    def label_texts(self) -> Sequence[str] | None:
        return None if self.texts is None else list(self.texts)


def _check_file(file: Path | int) -> int:
    """The size of a regular file; raises CorruptSample."""
    try:
        status = os.stat(file)
    except OSError as fault:
        raise CorruptSample("missing", fault.strerror or str(fault)) from None
    if not stat.S_ISREG(status.st_mode):
        raise CorruptSample("missing", "it is a device, pipe or folder, and no file")
    return status.st_size


def _open_at_once(path: str, flags: int) -> int:
    """Open a file; does not block on a pipe without a writer."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


# --- folders ---


def folder_splits(root: Path, known: tuple[str, ...]) -> dict[str, Path]:
    """Subfolders that are splits: ``{"train": root/train, "test": root/test}``.

    With two of train, val and test, or with one of them and no other folder of images, subfolders
    are splits. Otherwise all subfolders are classes.
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


def open_folder(
    root: Path,
    split: str,
    decoder: Decoder,
    name: str,
    files_in: Callable[[Path], list[str]] | None = None,
) -> FileSource:
    """Open a folder of images; subfolders are classes, unless there are images beside them.

    Args:
        files_in: returns the sorted paths of samples below a folder; None: files with the
            decoder's extensions.

    Raises:
        UserError: no such split.
        DataError: there is no image file.
    """
    known = decoder.extensions
    parts = folder_splits(root, known)
    split = splits.choose(name, split, parts)
    # List all splits, so that ids mean the same in each, even if one lacks a class.
    tops = parts or {split: root}
    files_in = files_in or partial(_samples, known)
    found = {part: files_in(folder) for part, folder in tops.items()}
    top, paths = parts.get(split, root), found[split]
    unused = unused_files(top, set(paths), decoder.channels if _are_images(known) else None)
    if not paths:
        looked_for = ", ".join(f".{extension}" for extension in known)
        kind = "image " if _are_images(known) else ""
        there = f"; there are {'; '.join(unused.lines())}" if unused else ""
        raise DataError(f"{name}: no {kind}files below {top} (looked for {looked_for}){there}")
    listing = class_listing(paths, found.values())
    source = FileSource(top, listing, name=name, split=split, decoder=decoder)
    source.unused.update(unused)
    return source


def _samples(known: tuple[str, ...], folder: Path) -> list[str]:
    """Files with a known extension; if there are none, images without an extension."""
    paths = sorted(walk(folder, known))
    if paths or not _are_images(known):
        return paths
    return [path for path in sorted(walk(folder, ("",))) if _is_image(folder / path)]


def _is_image(path: Path) -> bool:
    try:
        with open(path, "rb", opener=_open_at_once) as file:
            return kind_of(file.read(64)) is not None
    except OSError:
        return False


def _are_images(known: tuple[str, ...]) -> bool:
    return "jpg" in known


def open_file(path: Path, decoder: Decoder, name: str) -> FileSource:
    """Open a single file: one sample without a label."""
    listing = Listing([path.name], [-1], None)
    return FileSource(path.parent, listing, name=name, split="train", decoder=decoder)


def class_listing(paths: list[str], every: Iterable[list[str]]) -> Listing:
    """The files of a split, labelled by their first folder; unlabelled if any file is in none.

    Args:
        every: the paths of all splits, so that ids mean the same in each.
    """
    if not all("/" in path for path in paths):
        return Listing(paths, [-1] * len(paths), None)
    classes = sorted({_first(path) for part in every for path in part if "/" in path})
    ids = {folder: index for index, folder in enumerate(classes)}
    return Listing(paths, [ids[_first(path)] for path in paths], classes)


def unused_files(top: Path, used: Collection[str], channels: str | None = None) -> Unused:
    """Unused files below a folder, by extension.

    Args:
        channels: ``data.channels``, if messages shall say what would make image files readable.
    """
    unused, runs = Unused(), list[str]()
    for path in sorted(walk(top, runs=runs)):
        ending = ending_of(path)
        if path in used or path.rpartition("/")[2].lower() in _LITTER:
            continue
        mend = mend_of(ending, channels) if channels else ""
        what = f".{ending} files" if ending else "files without an ending"
        unused.add(f"{what}, {mend}" if mend else what, [path])
    unused.add("run directories of this suite", runs)
    return unused


def _first(path: str) -> str:
    return path.split("/", 1)[0]


def ending_of(path: str) -> str:
    """``a/B.JPG`` -> ``jpg``; empty without an extension."""
    name = path.rpartition("/")[2]
    return name.rpartition(".")[2].lower() if "." in name else ""


def is_litter(name: str) -> bool:
    """Whether a file or folder is hidden or was left by a file manager."""
    return name.startswith(".") or name == "__MACOSX"


def _is_run(names: set[str]) -> bool:
    """Whether a folder with these entries is a run directory of this suite."""
    return "config.yaml" in names and not _RUN_MARKS.isdisjoint(names)


def walk(
    root: Path, known: tuple[str, ...] | None = None, runs: list[str] | None = None
) -> Iterator[str]:
    """Relative paths, with ``/``, of files below ``root`` with a known extension; None: all files.

    Skips hidden files and folders, and run directories below ``root``. Follows links to folders,
    but visits each folder once.

    Args:
        runs: the paths of run directories are appended to it.
    """
    seen: set[tuple[int, int]] = set()
    pending = [(root, "")]
    while pending:
        folder, prefix = pending.pop()
        status = folder.stat()
        if (status.st_dev, status.st_ino) in seen:
            continue
        seen.add((status.st_dev, status.st_ino))
        entries = _entries(folder)
        if prefix and _is_run({entry.name for entry in entries}):
            if runs is not None:
                runs.append(prefix)
            continue
        for entry in entries:
            if entry.is_dir():
                pending.append((Path(entry.path), f"{prefix}{entry.name}/"))
            elif known is None or ending_of(entry.name) in known:
                yield prefix + entry.name


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as found:
            return sorted(
                (entry for entry in found if not is_litter(entry.name)),
                key=lambda entry: entry.name,
            )
    except OSError as fault:
        raise DataError(f"cannot list {folder}: {fault.strerror}") from None
