"""Folders of GeoTIFF files, each a sample, and folders whose files are the dates of one place.

The files of a folder are dates of one place where each name has a date and the names are otherwise
the same: ``place/B_20200131.tif``, ``place/B_20200216.tif``. Folders above are splits and classes.
"""

from __future__ import annotations

import os
from functools import partial
from itertools import islice
from pathlib import Path

from mimsuite.data import splits
from mimsuite.data.bands.rasters import EXTENSIONS, dates_in, is_geographic
from mimsuite.data.bands.series import rasters_in
from mimsuite.data.damage import CorruptSample
from mimsuite.data.decoder import Decoder
from mimsuite.data.local_file import LocalFile
from mimsuite.data.modalities import payload_extensions
from mimsuite.data.shards import holds_shards
from mimsuite.data.source import Payload, Source
from mimsuite.data.sources.files import (
    FileSource,
    Listing,
    class_listing,
    ending_of,
    folder_splits,
    unused_files,
    walk,
)
from mimsuite.errors import DataError

_LOOKED_AT = 16  # files of which one that says where it was taken shows what a folder holds


class RasterSource(FileSource):
    """Each file, or folder of dates, is a shard of one sample."""

    def payload(self, shard: int, offset: int) -> Payload:
        path = self.root / self._paths[shard]
        if not path.exists():
            raise CorruptSample("missing", "it is not there any more")
        return LocalFile(os.path.abspath(path)) if path.is_dir() else super().payload(shard, offset)

    def sample_bytes(self, shard: int, offset: int) -> int:
        path = self.root / self._paths[shard]
        if not path.is_dir():
            return super().sample_bytes(shard, offset)
        return sum(file.stat().st_size for file in rasters_in(path))


def speaks_of(path: Path) -> bool:
    """Whether it is a GeoTIFF, or a folder of nothing else, by the tags of the first files."""
    if path.is_file():
        return ending_of(path.name) in EXTENSIONS and is_geographic(
            LocalFile(os.path.abspath(path))
        )
    if not path.is_dir() or holds_shards(path):
        return False
    others = set(payload_extensions()) - set(EXTENSIONS)
    if next(walk(path, tuple(others)), None) is not None:
        return False
    first = islice(walk(path, EXTENSIONS), _LOOKED_AT)
    return any(is_geographic(LocalFile(os.path.abspath(path / file))) for file in first)


def splits_in(path: Path, decoder: Decoder) -> set[str] | None:
    """The splits of what :func:`open_set` opens, empty where it is one set; None: no rasters."""
    if path.is_file():
        return set() if ending_of(path.name) in EXTENSIONS else None
    if not path.is_dir() or holds_shards(path) or next(walk(path, EXTENSIONS), None) is None:
        return None
    return set(folder_splits(path, EXTENSIONS))


def open_set(path: Path, split: str, decoder: Decoder, name: str) -> Source:
    """A folder of rasters, a folder of dates, or one file.

    Raises:
        UserError: no such split.
        DataError: no raster.
    """
    open_listing = partial(RasterSource, name=name, decoder=decoder)
    if path.is_file() or _are_dates([file.name for file in rasters_in(path)]):
        split = splits.choose(name, split, ())
        return open_listing(path.parent, Listing([path.name], [-1], None), split=split)
    parts = folder_splits(path, EXTENSIONS)
    split = splits.choose(name, split, parts)
    found = {part: _samples(folder) for part, folder in (parts or {split: path}).items()}
    top, paths = parts.get(split, path), found[split]
    if not paths:
        raise DataError(f"{name}: no rasters below {top} (looked for {', '.join(EXTENSIONS)})")
    source = open_listing(top, class_listing(paths, found.values()), split=split)
    folders = {one for one in paths if ending_of(one) not in EXTENSIONS}
    dates = {file for file in walk(top, EXTENSIONS) if file.rpartition("/")[0] in folders}
    source.unused.update(unused_files(top, {*paths, *dates}))
    return source


def _samples(top: Path) -> list[str]:
    """Sorted paths below a folder, of files and of folders of dates."""
    by_folder: dict[str, list[str]] = {}
    for file in walk(top, EXTENSIONS):
        folder, _, name = file.rpartition("/")
        by_folder.setdefault(folder, []).append(name)
    found = []
    for folder, names in by_folder.items():
        if folder and _are_dates(names):
            found.append(folder)
        else:
            found += [f"{folder}/{name}" if folder else name for name in names]
    return sorted(found)


def _are_dates(names: list[str]) -> bool:
    """Whether files are the dates of one place, by their names."""
    if len(names) < 2:
        return False
    dated = [dates_in(name)[:1] for name in names]
    if not all(dated):
        return False
    days = {day for ((day, _),) in dated}
    rest = {text for ((_, text),) in dated}
    return len(days) == len(names) and len(rest) == 1
