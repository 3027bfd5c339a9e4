"""WebDataset tar shards: an index of each, random access by it, and ``index.json`` of the set."""

from __future__ import annotations

from mimsuite.data.shards.index import build_index, open_index
from mimsuite.data.shards.local_set import holds_shards
from mimsuite.data.shards.manifest import Manifest
from mimsuite.data.shards.sets import find_shards, open_shards, shard_splits
from mimsuite.data.shards.source import TarSource

__all__ = [
    "Manifest",
    "TarSource",
    "build_index",
    "find_shards",
    "holds_shards",
    "open_index",
    "open_shards",
    "shard_splits",
]
