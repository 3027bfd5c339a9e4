"""Rebuild indexes, and write ``index.json`` for shards made by other tools."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mimsuite.data.shards import Manifest, build_index, find_shards
from mimsuite.data.shards.manifest import FILE_NAME, entry_of


def index_shards(
    spec: str, progress: Callable[[int, int], None] = lambda done, total: None
) -> dict[str, Any]:
    """Scan every shard of a set and write its index.

    ``index.json`` is written if all shards are in one writable folder that has none. An existing
    ``index.json`` is compared.

    Returns:
        ``shards`` (name, bytes, samples, sha256) and ``notes``, lines for the user.

    Raises:
        DataError: a shard is damaged, or differs from ``index.json``.
        UserError: no writable folder.
    """
    paths = find_shards(spec)
    headers = []
    for number, path in enumerate(paths):
        headers.append(build_index(path))
        progress(number + 1, len(paths))
    notes = [f"indexes are in {headers[0].path.parent}"]
    entries = [entry_of(p, h.samples) for p, h in zip(paths, headers, strict=True)]
    folders = {path.parent for path in paths}
    known = Manifest.read(paths[0].parent)
    if known is not None:
        for path, header in zip(paths, headers, strict=True):
            known.check(path, samples=header.samples)
    elif len(folders) == 1:
        manifest = Manifest(
            extensions=sorted({extension for h in headers for extension in h.extensions}),
            classes=next((h.classes for h in headers if h.classes is not None), None),
            shards=entries,
        )
        try:
            manifest.write(paths[0].parent)
            notes.append(f"wrote {paths[0].parent / FILE_NAME}")
        except OSError as fault:
            notes.append(f"{FILE_NAME} not written: {fault.strerror}")
    return {"shards": [entry.model_dump() for entry in entries], "notes": notes}
