"""Indexes of remote shards: fetched from beside the shard, or made by reading it once.

Both are kept in the cache folder under a name that holds the shard's address, size and version, so
a shard that was replaced gets a new one.
"""

from __future__ import annotations

import logging
import os
from contextlib import suppress
from pathlib import Path

from mimsuite.data.cache import write_first_possible
from mimsuite.data.shards.index import (
    IndexHeader,
    index_folder,
    load_tables,
    read_header,
    to_bytes,
)
from mimsuite.data.shards.manifest import ShardEntry
from mimsuite.data.shards.scan import scan
from mimsuite.data.stores import RemoteShard
from mimsuite.data.stores.retry import Denied, NotThere
from mimsuite.data.stores.transfer import whole
from mimsuite.errors import DataError
from mimsuite.noise import key_of

_MOST_INDEX_BYTES = 1 << 28
_log = logging.getLogger(__name__)


def open_remote_index(shard: RemoteShard, entry: ShardEntry | None) -> IndexHeader:
    """The header of a remote shard's index.

    Args:
        entry: of the shard in ``index.json``; then an index may lie beside the shard.

    Raises:
        DataError: the shard is damaged, or not as ``index.json`` says; or it cannot be read.
    """
    path = _place(shard)
    header = None
    if path.is_file():
        with suppress(DataError):  # damaged in the cache: made anew
            header = read_header(path)
    if header is None and entry is not None:
        header = _fetched(shard, path)
    if header is None:
        header = read_header(write_first_possible([path], to_bytes(scan(shard))))
        assert header is not None
    if entry is not None and header.samples != entry.samples:
        raise DataError(
            f"shard {shard} has {header.samples} samples, index.json says {entry.samples}"
        )
    return header


def _place(shard: RemoteShard) -> Path:
    known = key_of(str(shard), shard.version.size, shard.sha256 or shard.version.tag)
    name = "".join(c if c.isascii() and (c.isalnum() or c in "._-") else "_" for c in shard.name)
    return index_folder() / f"{known:016x}-{name[-100:]}.idx"


def _fetched(shard: RemoteShard, path: Path) -> IndexHeader | None:
    """The index that lies beside the shard, if there is one and it is sound."""
    try:
        content = whole(shard.url.beside(".idx"), _MOST_INDEX_BYTES)
    except (NotThere, Denied):
        return None
    # It gets its name only when it was looked at: other processes take what has it.
    new = write_first_possible([path.with_name(f".{path.name}.{os.getpid()}.new")], content)
    try:
        if (reason := _refusal(new, shard)) is None:
            new.replace(path)
            return read_header(path)
    finally:
        new.unlink(missing_ok=True)
    _log.warning("the index beside %s %s: the shard itself is read", shard, reason)
    return None


def _refusal(path: Path, shard: RemoteShard) -> str | None:
    """Why an index is not one of this shard."""
    try:
        header = read_header(path)
        if header is None:
            return "is of another version"
        load_tables(header)  # which looks at every number in them
    except DataError:
        return "is damaged"
    if header.shard_bytes != shard.version.size:
        return f"is of a shard of {header.shard_bytes} bytes"
    return None
