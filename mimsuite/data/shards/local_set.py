"""Shard sets in the file system."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from mimsuite.data import splits
from mimsuite.data.shards.index import IndexHeader, open_index
from mimsuite.data.shards.manifest import FILE_NAME, Manifest
from mimsuite.data.shards.names import refuse_compressed, shard_files
from mimsuite.data.shards.scan import NoSample
from mimsuite.data.shards.shard_set import ShardSet, by_name, header_or_none
from mimsuite.data.stores import LocalShard, Shard
from mimsuite.errors import DataError


def holds_shards(folder: Path) -> bool:
    """Whether a folder is a shard set: it, or a sub-folder that is a split, has ``*.tar`` files."""
    return bool(_in_folder(folder))


def find(spec: str, paths: list[Path], beside: bool) -> ShardSet:
    """The set of a folder, or of one or more shards by name.

    Args:
        beside: indexes may be written beside the shards.

    Raises:
        DataError: no shards, one is missing or compressed, or ``index.json`` lists one more.
    """
    if len(paths) == 1 and paths[0].is_dir():
        found, manifest = _in_folder(paths[0]), _of_folder(spec, paths[0])
    else:
        found, manifest = _by_path(spec, paths)
    return ShardSet(
        {split: [LocalShard(path) for path in some] for split, some in found.items()},
        None if manifest is None else manifest.classes,
        partial(_headers, manifest=manifest, beside=beside),
    )


def _of_folder(spec: str, folder: Path) -> Manifest | None:
    here = {path.name for paths in _in_folder(folder).values() for path in paths}
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
    for part in sorted(folder.iterdir()):
        split = splits.split_of(part.name)
        if split and part.is_dir() and (paths := shard_files(part)):
            parts[split] = paths
    return parts


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
    shards: Sequence[Shard], *, manifest: Manifest | None, beside: bool
) -> list[IndexHeader | NoSample]:
    headers = []
    for shard in shards:
        assert isinstance(shard, LocalShard)
        if manifest is not None:
            manifest.check(shard.path)
        header = header_or_none(partial(open_index, shard.path, beside=beside))
        if manifest is not None and isinstance(header, IndexHeader):
            manifest.check(shard.path, samples=header.samples)
        headers.append(header)
    return headers
