"""From what the user names to a split of a shard set, wherever its shards lie."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from mimsuite.data import splits
from mimsuite.data.decoder import Decoder
from mimsuite.data.shards import local_set, remote_set
from mimsuite.data.shards.dotted_names import DottedTarSource, are_dotted
from mimsuite.data.shards.facts import ShardFacts, facts_of
from mimsuite.data.shards.frame_tars import FrameTarSource, are_frames
from mimsuite.data.shards.index import IndexHeader
from mimsuite.data.shards.names import places_of
from mimsuite.data.shards.scan import LABEL_EXTENSIONS
from mimsuite.data.shards.shard_set import LateHeaders, ShardSet
from mimsuite.data.shards.source import TarSource
from mimsuite.data.stores import LocalShard, ShardCache, Url
from mimsuite.errors import UserError

_WORDNET = re.compile(r"n\d{8}")


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
    by_names = None not in found.by_split
    if by_names:
        split = splits.choose(name, split, [s for s in found.by_split if s is not None])
    part = split if by_names else None
    known = found.known(part)
    if known is not None and kind_of(known[0], decoder) is not DottedTarSource:
        facts, counts = known
        chosen, empty = found.by_split[part], list[str]()
        headers: Sequence[IndexHeader] = LateHeaders(chosen, found.late_headers)
        key_split = None
        if not by_names:
            split = splits.choose(name, split, ())
    else:
        chosen, read, empty = found.sound(found.by_split[part])
        key_split = None
        if not by_names:
            existing = _key_splits(read)
            split = splits.choose(name, split, existing)
            key_split = split if existing else None
        pairs = [
            (shard, header)
            for shard, header in zip(chosen, read, strict=True)
            if key_split is None or header.splits.get(key_split)
        ]
        chosen = [shard for shard, _ in pairs]
        headers = [header for _, header in pairs]
        facts, counts = facts_of(headers), None
    classes, tar_labels = _classes(facts, found), None
    if classes is None and (classes := _tar_classes(facts, found)) is not None:
        numbers = {name: number for number, name in enumerate(classes)}
        tar_labels = [numbers[class_of(shard.name)] for shard in chosen]
    source = kind_of(facts, decoder)(
        chosen,
        headers,
        facts,
        counts=counts,
        name=name,
        split=split,
        key_split=key_split,
        classes=classes,
        decoder=decoder,
        verify=verify,
        tar_labels=tar_labels,
    )
    source.unused.add("shards without any sample", empty)
    _count_unread(source)
    return source


def kind_of(facts: ShardFacts, decoder: Decoder) -> type[TarSource]:
    """How members become samples: one of each key, frames of a video, or each file by itself."""
    if decoder.sequences and are_frames(facts.counts, decoder.extensions):
        return FrameTarSource
    return DottedTarSource if are_dotted(facts, decoder.extensions) else TarSource


def class_of(shard: str) -> str:
    """The class that a shard's name may give: ``n01440764.tar`` -> ``n01440764``."""
    return shard.removesuffix(".tar")


def _tar_classes(facts: ShardFacts, found: ShardSet) -> list[str] | None:
    """Classes by the names of the tar files, as ImageNet has one of each class.

    Only where no sample has a label, and the names are WordNet ids or have no digits.
    """
    if any(name in LABEL_EXTENSIONS for name in facts.counts):
        return None
    every = {class_of(shard.name) for shards in found.by_split.values() for shard in shards}
    wordnet = all(map(_WORDNET.fullmatch, every))
    plain = wordnet or not any(c.isdigit() or c in "-_." for name in every for c in name)
    return sorted(every) if plain and len(every) > 1 else None


def _count_unread(source: TarSource) -> None:
    """Count members that may be read, and are not by this decoder or beside another one."""
    if isinstance(source, FrameTarSource):
        return
    counts = source.facts.counts
    read = {
        name: n
        for name, n in counts.items()
        if _last(name) in source.decoder.extensions and name != source.decoder.label_map
    }
    for name, count in counts.items():
        if name not in (*read, *LABEL_EXTENSIONS, source.decoder.label_map):
            source.unused.add(f".{_last(name)} members", [f"*.{name}"], count=count)
    if not isinstance(source, DottedTarSource) and source.key_split is None:
        _count_beside(source, read)


def _count_beside(source: TarSource, read: dict[str, int]) -> None:
    more = sum(read.values()) - source.facts.samples
    if more <= 0:
        return
    names: list[str] = []  # the rarest and longest endings, enough to explain the count
    for name in sorted(read, key=lambda name: (name.count("."), -read[name]))[:0:-1]:
        if sum(read[one] for one in names) < more:
            names.insert(0, name)
    what = "files of a sample beside the one that is read"
    source.unused.add(what, [f"*.{name}" for name in names], count=more)


def _last(extension: str) -> str:
    return extension.rpartition(".")[2]


def shard_splits(spec: str, *, cache: ShardCache | None = None) -> set[str]:
    """Splits of a shard set, by sub-folders, file names or keys; empty if none of them has one."""
    found = _find(spec, cache=cache)
    if None not in found.by_split:
        return {split for split in found.by_split if split is not None}
    if found.known(None) is not None:  # keys that tell the split are not listed
        return set()
    return _key_splits(found.sound(found.by_split[None])[1])


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
    """Splits by keys, if every key of every shard has one."""
    if not all(header.splits for header in headers):
        return set()
    return {split for header in headers for split in header.splits}


def _classes(facts: ShardFacts, found: ShardSet) -> list[str] | None:
    """Names of the classes: listed in ``index.json`` or ``classes.json``, else those in labels."""
    if found.classes is not None:
        return found.classes
    if facts.classes is not None or not facts.label_names:
        return facts.classes
    # Ids must mean the same in every split, also where one lacks a class.
    names: set[str] = set()
    for split, shards in found.by_split.items():
        known = found.known(split)
        part = facts_of(found.sound(shards)[1]) if known is None else known[0]
        names.update(part.label_names)
    return sorted(names)
