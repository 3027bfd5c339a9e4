"""Folders of scans: ``.nii``, ``.nii.gz`` and ``.scan`` files, and folders of DICOM files, each a
scan. Folders above them are splits and classes, as those of images are.

Segmentations beside scans (``*_seg.nii.gz``, ``*_label.nii.gz`` ...) are counted as not used.
"""

from __future__ import annotations

import os
import re
from functools import partial
from itertools import islice
from pathlib import Path

from mimsuite.data import splits
from mimsuite.data.damage import CorruptSample
from mimsuite.data.decoder import Decoder
from mimsuite.data.local_file import LocalFile
from mimsuite.data.modalities import SCANS, payload_extensions
from mimsuite.data.scans.dicom import is_slice, slices_in
from mimsuite.data.shards import holds_shards
from mimsuite.data.source import Payload, Source
from mimsuite.data.sources.files import (
    FileSource,
    Listing,
    class_listing,
    unused_files,
    walk,
)
from mimsuite.errors import DataError

_FILES = (".nii", ".nii.gz", ".scan")
_LABELS = re.compile(r"[_-](seg|segmentation|label|labels|mask)\.nii(\.gz)?$", re.IGNORECASE)
_LOOKED_AT = 4096  # files of a folder among which one shows what it holds
_SEGMENTATIONS = "segmentations (*_seg, *_label, *_mask), which pretraining does not read"


class ScanSource(FileSource):
    """Each file, or folder of DICOM files, is a shard of one sample."""

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
        return open_listing(path.parent, Listing([path.name], [-1], None), split=split)
    parts = _parts(path)
    split = splits.choose(name, split, parts)
    found = {part: _scans(folder) for part, folder in (parts or {split: path}).items()}
    top, paths = parts.get(split, path), found[split]
    if not paths:
        raise DataError(f"{name}: no scans below {top} (looked for {', '.join(_FILES)}, DICOM)")
    source = open_listing(top, class_listing(paths, found.values()), split=split)
    labels = {file for file in walk(top) if _LABELS.search(file)}
    folders = {one for one in paths if not one.lower().endswith(_FILES)}
    slices = {file for file in walk(top) if file.rpartition("/")[0] in folders}
    source.unused.update(unused_files(top, {*paths, *labels, *slices}))
    source.unused.add(_SEGMENTATIONS, sorted(labels))
    return source


def _scans(folder: Path) -> list[str]:
    """Sorted paths below a folder, of files and of folders of slices."""
    files = list(walk(folder))
    found = {file for file in files if file.lower().endswith(_FILES) and not _LABELS.search(file)}
    for below in {file.rpartition("/")[0] for file in files} - {""}:
        if slices_in(folder / below):
            found.add(below)
    return sorted(found)


def _parts(path: Path) -> dict[str, Path]:
    """Sub-folders that are splits: each may hold files, or folders of slices."""
    named = {
        part: folder
        for folder in sorted(path.iterdir())
        if folder.is_dir() and (part := splits.split_of(folder.name)) and _shows_scans(folder)
    }
    others = [one for one in path.iterdir() if one.is_dir() and one not in named.values()]
    alone = len(named) == 1 and any(_shows_scans(one) for one in others)
    return {} if alone else named


def _shows_scans(folder: Path) -> bool:
    """Whether there are scans among the first files below."""
    return any(
        file.lower().endswith(_FILES) or is_slice(folder / file)
        for file in islice(walk(folder), _LOOKED_AT)
    )
