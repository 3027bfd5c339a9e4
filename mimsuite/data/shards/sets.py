"""From what the user names to a split of a shard set, wherever its shards lie."""

from __future__ import annotations

from pathlib import Path

from mimsuite.data import splits
from mimsuite.data.decode import Decoder
from mimsuite.data.shards import local_set, remote_set
from mimsuite.data.shards.frame_tars import FrameTarSource, are_frames
from mimsuite.data.shards.index import IndexHeader
from mimsuite.data.shards.names import places_of
from mimsuite.data.shards.shard_set import ShardSet
from mimsuite.data.shards.source import TarSource
from mimsuite.data.stores import LocalShard, ShardCache, Url
from mimsuite.errors import UserError


def open_shards(
    spec: str,
    split: str,
    decoder: Decoder,
    verify: str,
    name: str,
    *,
    beside: bool = True,
    cache: ShardCache | None = None,
) -> TarSource:
    """A split of a folder of shards, a single ``.tar`` or a brace pattern, local or remote.

    Args:
        beside: indexes may be written beside local shards.
        cache: of whole remote shards.

    Raises:
        UserError: no such split, or a scheme that is not read.
        DataError: a shard is missing, damaged, or not as ``index.json`` says.
    """
    found = _find(spec, beside=beside, cache=cache)
    key_split, shards = None, found.by_split.get(None)
    if shards is None:
        split = splits.choose(name, split, [s for s in found.by_split if s is not None])
        shards = found.by_split[split]
        headers = found.headers(shards)
    else:
        headers = found.headers(shards)
        existing = _key_splits(headers)
        split = splits.choose(name, split, existing)
        key_split = split if existing else None
    pairs = [
        (shard, header)
        for shard, header in zip(shards, headers, strict=True)
        if key_split is None or header.splits.get(key_split)
    ]
    names = {name for _, header in pairs for name in header.extensions}
    frames = decoder.sequences and are_frames(names, decoder.extensions)
    return (FrameTarSource if frames else TarSource)(
        [shard for shard, _ in pairs],
        [header for _, header in pairs],
        name=name,
        split=split,
        key_split=key_split,
        classes=_classes(headers, found),
        decoder=decoder,
        verify=verify,
    )


def shard_splits(spec: str, *, cache: ShardCache | None = None) -> set[str]:
    """Splits of a shard set: told by sub-folders, file names or keys; empty where by none."""
    found = _find(spec, cache=cache)
    if None not in found.by_split:
        return {split for split in found.by_split if split is not None}
    return _key_splits(found.headers(found.by_split[None]))


def find_shards(spec: str) -> list[Path]:
    """All shards of a local set, of every split.

    Raises:
        UserError: the set is not local.
        DataError: a shard is missing.
    """
    shards = [shard for shards in _find(spec).by_split.values() for shard in shards]
    paths = [shard.path for shard in shards if isinstance(shard, LocalShard)]
    if len(paths) < len(shards):
        raise UserError(f"{spec}: only local shards are indexed: remote ones are at first use")
    return paths


def _find(spec: str, *, beside: bool = True, cache: ShardCache | None = None) -> ShardSet:
    places = places_of(spec)
    urls = [place for place in places if isinstance(place, Url)]
    if urls:
        return remote_set.find(spec, urls, cache)
    return local_set.find(spec, [place for place in places if isinstance(place, Path)], beside)


def _key_splits(headers: list[IndexHeader]) -> set[str]:
    """Splits told by keys; only where every key of every shard tells one."""
    if not all(header.splits for header in headers):
        return set()
    return {split for header in headers for split in header.splits}


def _classes(headers: list[IndexHeader], found: ShardSet) -> list[str] | None:
    """Names of the classes: listed in ``index.json`` or ``classes.json``, else those in labels."""
    if found.classes is not None:
        return found.classes
    listed = next((header.classes for header in headers if header.classes is not None), None)
    if listed is not None or not any(header.label_names for header in headers):
        return listed
    # Ids must mean the same in every split, also where one lacks a class.
    known = found.headers([shard for shards in found.by_split.values() for shard in shards])
    return sorted({name for header in known for name in header.label_names})
