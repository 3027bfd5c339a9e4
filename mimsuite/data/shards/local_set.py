"""Shard sets in the file system."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from mimsuite.data import splits
from mimsuite.data.shards.index import IndexHeader, open_index
from mimsuite.data.shards.manifest import FILE_NAME, Manifest
from mimsuite.data.shards.names import refuse_compressed, shard_files, shard_names
from mimsuite.data.shards.scan import NoSample
from mimsuite.data.shards.shard_set import ShardSet, by_name, header_or_none
from mimsuite.data.stores import LocalShard, Shard
from mimsuite.errors import DataError


def holds_shards(folder: Path) -> bool:
    """Whether a folder is a shard set: it, or a sub-folder that is a split, has ``*.tar`` files."""
    return any(shard_names(folder)) or any(
        any(shard_names(folder / name)) for name, split in _parts(folder)
    )


def find(spec: str, paths: list[Path], beside: bool) -> ShardSet:
    """The set of a folder, or of one or more shards by name.

    Args:
        beside: indexes may be written beside the shards.

    Raises:
        DataError: no shards, one is missing or compressed, or ``index.json`` lists one more.
    """
    if len(paths) == 1 and paths[0].is_dir():
        found = _in_folder(paths[0])
        manifest = _of_folder(spec, paths[0], found)
    else:
        found, manifest = _by_path(spec, paths)
    return ShardSet(
        {split: [LocalShard(path) for path in some] for split, some in found.items()},
        None if manifest is None else manifest.classes,
        partial(_headers, beside=beside, compare=True),
        partial(_headers, beside=beside, compare=False),
        manifest,
        partial(_check, manifest),
    )


def _of_folder(spec: str, folder: Path, found: dict[str | None, list[Path]]) -> Manifest | None:
    here = {path.name for paths in found.values() for path in paths}
    if not here:
        raise DataError(f"{spec}: no .tar shards in this folder")
    manifest = Manifest.read(folder)
    if manifest is not None and (missing := sorted(set(manifest.by_name) - here)):
        raise DataError(
            f"{spec}: {len(missing)} shards that {FILE_NAME} lists are missing, the first is "
            f"{missing[0]}"
        )
    return manifest


def _in_folder(folder: Path) -> dict[str | None, list[Path]]:
    if paths := shard_files(folder):
        return by_name(paths)
    parts: dict[str | None, list[Path]] = {}
    for name, split in _parts(folder):
        if paths := shard_files(folder / name):
            parts[split] = paths
    return parts


def _parts(folder: Path) -> list[tuple[str, str]]:
    """Sub-folders that are splits, and which."""
    named = [(name, splits.split_of(name)) for name in sorted(os.listdir(folder))]
    return [(name, split) for name, split in named if split and (folder / name).is_dir()]


def _by_path(spec: str, paths: list[Path]) -> tuple[dict[str | None, list[Path]], Manifest | None]:
    missing = [path for path in paths if not path.is_file()]
    if missing:
        raise DataError(
            f"{len(missing)} of {len(paths)} shards of '{spec}' are missing, the first is "
            f"{missing[0]}"
        )
    for path in paths:
        refuse_compressed(path)
    if len(set(paths)) < len(paths):
        raise DataError(f"'{spec}' names a shard twice")
    listed = Manifest.read(paths[0].parent)
    if listed is not None and not all(path.name in listed.by_name for path in paths):
        listed = None  # an index of other shards, which happen to lie in the same folder
    return by_name(paths), listed


def _headers(
    shards: Sequence[Shard], *, beside: bool, compare: bool
) -> list[IndexHeader | NoSample]:
    paths = [shard.path for shard in shards if isinstance(shard, LocalShard)]
    return [
        header_or_none(partial(open_index, path, beside=beside, compare=compare)) for path in paths
    ]


def _check(manifest: Manifest | None, shard: Shard, samples: int | None) -> None:
    if manifest is not None and isinstance(shard, LocalShard):
        manifest.check(shard.path, samples=samples)
