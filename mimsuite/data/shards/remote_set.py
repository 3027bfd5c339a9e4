"""Shard sets on S3 and on web servers.

With ``index.json`` nothing has to be asked of single shards: it holds their sizes, counts and
checksums. Without it a folder on S3 is listed; a web server cannot be, so there shards are named.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeVar

from mimsuite.data import splits
from mimsuite.data.shards.index import IndexHeader
from mimsuite.data.shards.manifest import FILE_NAME, Manifest, ShardEntry
from mimsuite.data.shards.names import refuse_compressed
from mimsuite.data.shards.remote_index import open_remote_index
from mimsuite.data.shards.scan import NoSample
from mimsuite.data.shards.shard_set import ShardSet, by_name, header_or_none
from mimsuite.data.stores import RemoteShard, Shard, ShardCache, Url, s3
from mimsuite.data.stores.retry import Denied, NotThere
from mimsuite.data.stores.transfer import Version, look, whole
from mimsuite.errors import DataError, UserError

_MOST_MANIFEST_BYTES = 1 << 28
_AT_ONCE = 8  # requests for indexes; each waits for the network most of the time

_log = logging.getLogger(__name__)
Job = TypeVar("Job")
Result = TypeVar("Result")
_Entries = dict[str, ShardEntry]  # by the address of the shard


def find(spec: str, urls: list[Url], cache: ShardCache | None) -> ShardSet:
    """The set of a folder, or of one or more shards by address.

    Raises:
        UserError: nothing can be read there; access is denied.
        DataError: a shard is missing, or ``index.json`` is no such list.
    """
    for url in urls:
        refuse_compressed(url)
    if len(urls) == 1 and not urls[0].name.endswith(".tar"):
        return _folder(spec, urls[0], cache)
    if wrong := [url for url in urls if not url.name.endswith(".tar")]:
        raise UserError(f"{wrong[0]}: a remote source is .tar shards, or the folder of them")
    if len(set(urls)) < len(urls):
        raise DataError(f"'{spec}' names a shard twice")
    manifest = _manifest_beside(urls)
    if manifest is not None:
        entries = {str(url): manifest.by_name[url.name] for url in urls}
        shards = [_listed(url, entries[str(url)], cache) for url in urls]
        return _set(by_name(shards), entries, manifest.classes, manifest)
    try:
        versions = _together(look, urls)
    except NotThere as fault:
        raise DataError(f"of {len(urls)} shards of '{spec}' one is missing: {fault}") from None
    shards = [RemoteShard(u, v, None, cache) for u, v in zip(urls, versions, strict=True)]
    return _set(by_name(shards), {}, None)


def _set(
    shards: dict[str | None, list[RemoteShard]],
    entries: _Entries,
    classes: list[str] | None,
    listed: Manifest | None = None,
) -> ShardSet:
    headers = partial(_headers, entries=entries)
    parts: dict[str | None, list[Shard]] = {split: [*some] for split, some in shards.items()}
    return ShardSet(parts, classes, headers, headers, listed)


def _headers(shards: Sequence[Shard], *, entries: _Entries) -> list[IndexHeader | NoSample]:
    remote = [shard for shard in shards if isinstance(shard, RemoteShard)]

    def read(shard: RemoteShard) -> IndexHeader | NoSample:
        return header_or_none(partial(open_remote_index, shard, entries.get(str(shard))))

    return _together(read, remote)


def _folder(spec: str, folder: Url, cache: ShardCache | None) -> ShardSet:
    listable = folder.scheme == "s3"
    manifest = _manifest(folder)
    if manifest is not None:
        shards, entries = _of_manifest(folder, manifest, cache)
        return _set(by_name(shards), entries, manifest.classes, manifest)
    if listable:
        found, parts = _listing(folder, cache)
        if found:
            return _set(by_name(found), {}, None)
    else:
        parts = {split: folder.child(split) for split in ("train", "val", "test")}
    by_split: dict[str | None, list[RemoteShard]] = {}
    all_entries: _Entries = {}
    classes = None
    for split, part in parts.items():
        manifest = _manifest(part)
        if manifest is not None:
            by_split[split], entries = _of_manifest(part, manifest, cache)
            all_entries |= entries
            classes = classes or manifest.classes
        elif listable and (found := _listing(part, cache)[0]):
            by_split[split] = found
    if by_split:
        return _set(by_split, all_entries, classes)
    if listable:
        raise UserError(f"{spec}: there are no .tar shards at this address")
    raise UserError(
        f"{spec}: there is no {FILE_NAME}, and a web server cannot be listed: name the shards "
        f"({folder}/train-{{000000..000009}}.tar), or put the {FILE_NAME} of `mimsuite data index` "
        f"there"
    )


def _manifest(folder: Url) -> Manifest | None:
    """``index.json`` of a folder."""
    content = _manifest_content(folder)
    return None if content is None else Manifest.parse(content, str(folder.child(FILE_NAME)))


def _manifest_beside(urls: list[Url]) -> Manifest | None:
    """``index.json`` beside shards that were named, if it is of them."""
    folder = urls[0].parent
    if any(url.parent != folder for url in urls):
        return None
    try:
        content = _manifest_content(folder)
    except Denied:
        return None
    if content is None:
        return None
    try:
        manifest = Manifest.parse(content, str(folder.child(FILE_NAME)))
    except DataError as fault:  # many servers answer what they do not know with some page
        _log.warning("not used: %s", fault)
        return None
    return manifest if all(url.name in manifest.by_name for url in urls) else None


def _manifest_content(folder: Url) -> bytes | None:
    try:
        return whole(folder.child(FILE_NAME), _MOST_MANIFEST_BYTES)
    except NotThere:
        return None
    except Denied:
        if folder.scheme == "s3":  # which denies what does not exist to those who may not list
            return None
        raise


def _of_manifest(
    folder: Url, manifest: Manifest, cache: ShardCache | None
) -> tuple[list[RemoteShard], _Entries]:
    shards = [_listed(folder.child(entry.name), entry, cache) for entry in manifest.shards]
    if not shards:
        raise DataError(f"{folder}: {FILE_NAME} lists no shards")
    pairs = zip(shards, manifest.shards, strict=True)
    return shards, {str(shard): entry for shard, entry in pairs}


def _listed(url: Url, entry: ShardEntry, cache: ShardCache | None) -> RemoteShard:
    return RemoteShard(url, Version(entry.bytes), entry.sha256, cache)


def _listing(folder: Url, cache: ShardCache | None) -> tuple[list[RemoteShard], dict[str, Url]]:
    """The ``*.tar`` objects of a folder on S3, and its sub-folders that are splits."""
    shards, parts = [], {}
    for item in sorted(s3.entries(folder), key=lambda item: item.name):
        split = splits.split_of(item.name)
        if item.size is None and split is not None:
            parts[split] = folder.child(item.name)
        elif item.size is not None and item.name.endswith(".tar") and item.name[0] != ".":
            version = Version(item.size, item.tag)
            shards.append(RemoteShard(folder.child(item.name), version, None, cache))
    return shards, parts


def _together(work: Callable[[Job], Result], jobs: Sequence[Job]) -> list[Result]:
    """``work`` of all jobs, in their order; the first fault ends it."""
    if len(jobs) <= 1:
        return [work(job) for job in jobs]
    pool = ThreadPoolExecutor(_AT_ONCE)
    try:
        return list(pool.map(work, jobs))
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
