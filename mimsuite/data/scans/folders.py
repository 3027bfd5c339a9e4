"""Folders of scans: ``.nii``, ``.nii.gz`` and ``.scan`` files, and folders of DICOM files, each a
scan. Folders above them are splits and classes, as those of images are.

Label maps of scans lie beside them, or in folders of their own; see
:mod:`mimsuite.data.scans.label_maps`. ``imagesTr`` and ``imagesTs``, with ``labelsTr`` and
``labelsTs``, are the splits train and test, as nnU-Net lays them out.
"""

from __future__ import annotations

import os
from functools import partial
from itertools import islice
from pathlib import Path

from mimsuite.data import splits
from mimsuite.data.damage import CorruptSample
from mimsuite.data.decoder import Decoder
from mimsuite.data.local_file import LocalFile
from mimsuite.data.modalities import SCANS, payload_extensions
from mimsuite.data.scans.dicom import is_slice, slices_in
from mimsuite.data.scans.label_maps import LabelMaps, is_label_folder, is_label_map
from mimsuite.data.shards import holds_shards
from mimsuite.data.source import Payload, Source
from mimsuite.data.sources.files import (
    FileSource,
    Listing,
    class_listing,
    unused_files,
    walk,
)
from mimsuite.data.strings import StringTable
from mimsuite.errors import DataError

_FILES = (".nii", ".nii.gz", ".scan")
_NNUNET = {"imagestr": "train", "imagests": "test", "imagesval": "val"}
_LOOKED_AT = 4096  # files of a folder among which one shows what it holds
_ORPHANS = "label maps of no scan"


class ScanSource(FileSource):
    """Each file, or folder of DICOM files, is a shard of one sample.

    Attributes:
        maps: path of the label map of each sample; empty: it has none.
    """

    maps: StringTable

    def label_map(self, shard: int, offset: int) -> Payload | None:
        path = self.maps[shard]
        return LocalFile(os.path.abspath(path)) if path else None

    def has_label_map(self, shard: int, offset: int) -> bool:
        return bool(self.maps[shard])

    def payload(self, shard: int, offset: int) -> Payload:
        path = self.root / self._paths[shard]
        if not path.exists():
            raise CorruptSample("missing", "it is not there any more")
        if not path.is_dir():
            return super().payload(shard, offset)
        return LocalFile(os.path.abspath(path))

    def sample_bytes(self, shard: int, offset: int) -> int:
        path = self.root / self._paths[shard]
        if not path.is_dir():
            return super().sample_bytes(shard, offset)
        return sum(slice_.stat().st_size for slice_ in slices_in(path))


def speaks_of(path: Path) -> bool:
    """Whether it is a scan, or a folder of scans without samples of another kind."""
    if path.is_file():
        return path.name.lower().endswith(_FILES)
    if not path.is_dir() or holds_shards(path) or not _shows_scans(path):
        return False
    others = set(payload_extensions()) - set(SCANS.extensions)
    return next(walk(path, tuple(others)), None) is None


def splits_in(path: Path, decoder: Decoder) -> set[str] | None:
    """The splits of what :func:`open_set` opens, empty where it is one set; None: no scans."""
    if path.is_file():
        return set() if speaks_of(path) else None
    if not path.is_dir() or holds_shards(path) or not _shows_scans(path):
        return None
    return set() if slices_in(path) else set(_parts(path))


def open_set(path: Path, split: str, decoder: Decoder, name: str) -> Source:
    """A folder of scans, one file, or one folder of DICOM files.

    Raises:
        UserError: no such split.
        DataError: no scan.
    """
    open_listing = partial(ScanSource, name=name, decoder=decoder)
    if path.is_file() or slices_in(path):
        split = splits.choose(name, split, ())
        one = open_listing(path.parent, Listing([path.name], [-1], None), split=split)
        one.maps = StringTable.of([LabelMaps(path.parent).of(path.name)])
        return one
    parts = _parts(path)
    split = splits.choose(name, split, parts)
    found = {part: _scans(folder) for part, folder in (parts or {split: path}).items()}
    top, paths = parts.get(split, path), found[split]
    if not paths:
        raise DataError(f"{name}: no scans below {top} (looked for {', '.join(_FILES)}, DICOM)")
    source = open_listing(top, class_listing(paths, found.values()), split=split)
    maps = LabelMaps(top)
    source.maps = StringTable.of([maps.of(file) for file in paths])
    labels = {file for file in walk(top) if is_label_map(file)}
    folders = {one for one in paths if not one.lower().endswith(_FILES)}
    slices = {file for file in walk(top) if file.rpartition("/")[0] in folders}
    source.unused.update(unused_files(top, {*paths, *labels, *slices}))
    read = set(source.maps)
    source.unused.add(_ORPHANS, sorted(file for file in labels if str(top / file) not in read))
    return source


def _scans(folder: Path) -> list[str]:
    """Sorted paths below a folder, of files and of folders of slices."""
    files = list(walk(folder))
    found = {file for file in files if file.lower().endswith(_FILES) and not is_label_map(file)}
    for below in {file.rpartition("/")[0] for file in files} - {""}:
        if slices_in(folder / below):
            found.add(below)
    return sorted(found)


def _parts(path: Path) -> dict[str, Path]:
    """Sub-folders that are splits: each may hold files, or folders of slices."""
    named = {
        part: folder
        for folder in sorted(path.iterdir())
        if folder.is_dir() and (part := _split_of(folder.name)) and _shows_scans(folder)
    }
    others = [
        one
        for one in path.iterdir()
        if one.is_dir() and one not in named.values() and not is_label_folder(one.name)
    ]
    alone = len(named) == 1 and any(_shows_scans(one) for one in others)
    return {} if alone else named


def _split_of(name: str) -> str | None:
    return splits.split_of(name) or _NNUNET.get(name.lower())


def _shows_scans(folder: Path) -> bool:
    """Whether there are scans among the first files below."""
    return any(
        file.lower().endswith(_FILES) or is_slice(folder / file)
        for file in islice(walk(folder), _LOOKED_AT)
    )
