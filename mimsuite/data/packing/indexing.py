"""Rebuild indexes, and write ``index.json`` for shards made by other tools."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from mimsuite.data.parallel import each
from mimsuite.data.shards import Manifest, build_index, find_shards
from mimsuite.data.shards.facts import ShardFacts, facts_to_list
from mimsuite.data.shards.index import IndexHeader
from mimsuite.data.shards.manifest import FILE_NAME, ShardEntry
from mimsuite.data.shards.scan import Scan, scan_hashed
from mimsuite.data.shards.shard_set import by_name


def index_shards(
    spec: str,
    progress: Callable[[int, int], None] = lambda done, total: None,
    workers: int = 1,
) -> dict[str, Any]:
    """Scan every shard of a set, once, and write its index.

    ``index.json`` is written if all shards are in one writable folder. An existing one is compared
    first, and only gets what a set is opened by without reading its indexes.

    Args:
        workers: processes.

    Returns:
        ``shards`` (name, bytes, samples, sha256) and ``notes``, lines for the user.

    Raises:
        DataError: a shard is damaged, or differs from ``index.json``.
        UserError: no writable folder.
    """
    paths = find_shards(spec)
    headers, entries = list[IndexHeader](), list[ShardEntry]()
    for header, entry in each(index_shard, paths, workers):
        headers.append(header)
        entries.append(entry)
        progress(len(headers), len(paths))
    notes = [f"indexes are in {headers[0].path.parent}"]
    folder = paths[0].parent
    known = Manifest.read(folder)
    if known is not None:
        for path, header in zip(paths, headers, strict=True):
            known.check(path, samples=header.samples)
    facts = facts_by_split((path.name for path in paths), headers)
    whole = known is None or {path.name for path in paths} == set(known.by_name)
    if {path.parent for path in paths} == {folder} and whole and (known is None or facts):
        manifest = known or Manifest(
            extensions=sorted({extension for h in headers for extension in h.extensions}),
            classes=next((h.classes for h in headers if h.classes is not None), None),
            shards=entries,
        )
        try:
            manifest.model_copy(update={"facts": facts}).write(folder)
            notes.append(f"wrote {folder / FILE_NAME}")
        except OSError as fault:
            notes.append(f"{FILE_NAME} not written: {fault.strerror}")
    return {"shards": [asdict(entry) for entry in entries], "notes": notes}


def index_shard(path: Path) -> tuple[IndexHeader, ShardEntry]:
    """Write the index of a shard, and measure it, reading it once."""
    digest = ""

    def look(shard: Path) -> Scan:
        nonlocal digest
        found, digest = scan_hashed(shard)
        return found

    header = build_index(path, look=look)
    return header, ShardEntry(path.name, header.shard_bytes, header.samples, digest)


def facts_by_split(names: Iterable[str], headers: Iterable[IndexHeader]) -> dict[str, ShardFacts]:
    """Facts for ``index.json``, by the split that the names of shards tell."""
    parts = by_name([_Named(*pair) for pair in zip(names, headers, strict=True)])
    facts = {split: facts_to_list([one.header for one in part]) for split, part in parts.items()}
    return {split or "": one for split, one in facts.items() if one is not None}


class _Named(NamedTuple):
    name: str  # file name of the shard
    header: IndexHeader
