"""Folders of clouds, including the layouts of published sets.

- ModelNet: ``airplane/airplane_0001.txt``, ``modelnet40_train.txt``, ``..._shape_names.txt``.
- ShapeNetPart: ``02691156/*.txt``, ``synsetoffset2category.txt``, ``train_test_split/*.json``.
- ShapeNet-55: ``shapenet_pc/02691156-*.npy``, ``ShapeNet-55/train.txt``.
- ScanObjectNN and others: ``.h5`` files (:mod:`cloud_h5`).

In a folder without other clouds, ``.txt``, ``.csv`` and ``.bin`` files are clouds if their content
is one.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path

from mimsuite.data import splits
from mimsuite.data.decoder import Decoder
from mimsuite.data.modalities import POINTS, payload_extensions
from mimsuite.data.points.cloud_h5 import H5_EXTENSIONS, h5_files, h5_splits, open_h5
from mimsuite.data.points.float_rows import are_float_rows
from mimsuite.data.points.text_clouds import is_cloud
from mimsuite.data.shards import holds_shards
from mimsuite.data.source import Source
from mimsuite.data.sources.files import (
    FileSource,
    Listing,
    ending_of,
    folder_splits,
    open_folder,
    unused_files,
    walk,
)
from mimsuite.errors import DataError

GENERIC = ("txt", "csv", "bin")  # extensions that are not specific to clouds
_HEAD = 8000  # bytes read to recognise a file: whole rows of 4 and of 5 float32
_LOOKED_AT = 256  # files examined in a folder without specific extensions
_SPLITS = ("train", "val", "test")


@dataclass
class PublishedSet:
    """Files of a set that comes with lists of its splits.

    Attributes:
        root: paths are relative to it.
        parts: split -> paths and class ids.
        classes: class names, indexed by id.
        lists: list files that were read; they are no samples.
        missing: listed paths without a file.
    """

    root: Path
    classes: list[str]
    parts: dict[str, list[tuple[str, int]]] = field(default_factory=dict)
    lists: set[str] = field(default_factory=set)
    missing: list[str] = field(default_factory=list)


def open_set(path: Path, split: str, decoder: Decoder, name: str) -> Source:
    """Open a folder of clouds, a folder of ``.h5`` files, or a single file of either.

    Raises:
        UserError: no such split, or several sets of ``.h5`` files in the folder.
        DataError: there are no clouds.
    """
    if _is_h5(path, decoder):
        source: Source = open_h5(path, split, decoder, name)
        if path.is_dir():
            source.unused.update(unused_files(path, {file.name for file in h5_files(path)}))
        return source
    found = published_set(path)
    if found is None:
        return open_folder(path, split, decoder, name, partial(cloud_files, decoder.extensions))
    split = splits.choose(name, split, found.parts)
    rows = found.parts[split]
    listing = Listing([path for path, _ in rows], [label for _, label in rows], found.classes)
    source = FileSource(found.root, listing, name=name, split=split, decoder=decoder)
    listed = {path for part in found.parts.values() for path, _ in part}
    source.unused.update(unused_files(found.root, listed | found.lists))
    source.unused.add("listed clouds without a file", found.missing)
    return source


def splits_in(path: Path, decoder: Decoder) -> set[str] | None:
    """The splits that :func:`open_set` can open, empty for a set without splits; None for shards
    and for other files."""
    if path.suffix not in H5_EXTENSIONS and (not path.is_dir() or holds_shards(path)):
        return None
    if _is_h5(path, decoder):
        return h5_splits(path)
    found = published_set(path)
    return set(found.parts if found else folder_splits(path, (*decoder.extensions, *GENERIC)))


def speaks_of(path: Path) -> bool:
    """Whether a folder without specific extensions holds clouds, by content."""
    if path.suffix in H5_EXTENSIONS:
        return True
    if not path.is_dir() or holds_shards(path):
        return False
    if next(walk(path, payload_extensions()), None) is not None:
        return False
    if h5_files(path) or published_set(path) is not None:
        return True
    return any(_is_sample(path / found) for found in islice(walk(path, GENERIC), _LOOKED_AT))


def _is_h5(path: Path, decoder: Decoder) -> bool:
    return bool(h5_files(path)) and (
        path.is_file() or next(walk(path, decoder.extensions), None) is None
    )


def cloud_files(extensions: tuple[str, ...], folder: Path) -> list[str]:
    """Sorted paths of the files with one of the extensions; if the folder has no files with cloud
    extensions at all, of files whose content is a cloud."""
    if next(walk(folder, POINTS.extensions), None) is not None:
        return sorted(walk(folder, extensions))
    return [path for path in sorted(walk(folder, GENERIC)) if _is_sample(folder / path)]


def _is_sample(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            start = file.read(_HEAD)
    except OSError:
        return False
    return are_float_rows(start) if ending_of(path.name) == "bin" else is_cloud(start)


def published_set(path: Path) -> PublishedSet | None:
    """The set in a folder, or in its only subfolder with lists; None: no lists in either."""
    try:
        below = sorted(folder for folder in path.iterdir() if folder.is_dir())
    except OSError as fault:
        raise DataError(f"cannot list {path}: {fault.strerror}") from None
    for read in (_modelnet, _shapenet_part, _shapenet):
        for root in (path, *below):
            if (found := read(root)) is not None:
                return found
    return None


def _modelnet(root: Path) -> PublishedSet | None:
    """Use the lists with most classes: ModelNet40 also contains the lists of ModelNet10.

    Without a test list, all files that the train list does not name are test files.
    """
    named = {path: _lines(path) for path in root.glob("*_shape_names.txt")}
    if not named:
        return None
    names = max(named, key=lambda path: len(named[path]))
    found = PublishedSet(root, named[names], lists={names.name})
    prefix = names.name.removesuffix("shape_names.txt")
    have = {path for path in walk(root, ("txt",)) if path.partition("/")[0] in found.classes}
    for split in _SPLITS:
        listed = root / f"{prefix}{split}.txt"
        if listed.is_file():
            found.lists.add(listed.name)
            paths = (f"{line.rpartition('_')[0]}/{line}.txt" for line in _lines(listed))
            _add(found, split, paths, have, lambda path: path.partition("/")[0])
    if set(found.parts) == {"train"}:
        rest = sorted(have - {path for path, _ in found.parts["train"]})
        _add(found, "test", rest, have, lambda path: path.partition("/")[0])
    return found if found.parts else None


def _shapenet_part(root: Path) -> PublishedSet | None:
    """Class ids follow the order of ``synsetoffset2category.txt``, as do the part ids."""
    categories, lists = root / "synsetoffset2category.txt", root / "train_test_split"
    if not categories.is_file() or not lists.is_dir():
        return None
    name_of = {words[1]: words[0] for line in _lines(categories) if len(words := line.split()) > 1}
    found = PublishedSet(root, list(name_of.values()), lists={categories.name})
    have = set(walk(root, ("txt",)))
    for split in _SPLITS:
        listed = lists / f"shuffled_{split}_file_list.json"
        if listed.is_file():
            found.lists.add(f"{lists.name}/{listed.name}")
            paths = (f"{entry.partition('/')[2]}.txt" for entry in _json_list(listed))
            _add(found, split, paths, have, lambda path: name_of.get(path.partition("/")[0], ""))
    return found if found.parts else None


def _shapenet(root: Path) -> PublishedSet | None:
    """Prefer ``ShapeNet-55`` to ``ShapeNet-34``; the class is the prefix of a file's name."""
    clouds = root / "shapenet_pc"
    lists = sorted(root.glob("ShapeNet-*/train.txt"), reverse=True)
    if not clouds.is_dir() or not lists:
        return None
    have = set(walk(clouds, ("npy",)))
    entries = {
        split: _lines(lists[0].parent / f"{split}.txt")
        for split in _SPLITS
        if (lists[0].parent / f"{split}.txt").is_file()
    }
    classes = sorted({line.partition("-")[0] for lines in entries.values() for line in lines})
    found = PublishedSet(clouds, classes)
    for split, lines in entries.items():
        _add(found, split, lines, have, lambda path: path.partition("-")[0])
    return found if found.parts else None


def _add(
    found: PublishedSet,
    split: str,
    paths: Iterable[str],
    have: set[str],
    class_of: Callable[[str], str],
) -> None:
    """Add the listed files that exist to a split."""
    ids = {name: number for number, name in enumerate(found.classes)}
    listed = sorted(dict.fromkeys(paths))
    rows = [(path, ids.get(class_of(path), -1)) for path in listed if path in have]
    found.missing += [path for path in listed if path not in have]
    if rows:
        found.parts[split] = rows


def _lines(path: Path) -> list[str]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as fault:
        raise DataError(f"cannot read {path}: {fault}") from None
    return [line.strip() for line in text.splitlines() if line.strip()]


def _json_list(path: Path) -> list[str]:
    try:
        entries = json.loads(path.read_bytes())
    except (OSError, ValueError) as fault:
        raise DataError(f"cannot read {path}: {fault}") from None
    if not isinstance(entries, list) or not all(isinstance(entry, str) for entry in entries):
        raise DataError(f"{path}: no list of names")
    return entries
