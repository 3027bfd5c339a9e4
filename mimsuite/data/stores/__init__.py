"""Storage of shards: local files, web servers and S3, behind one interface."""

from __future__ import annotations

from mimsuite.data.stores.local import LocalFile, LocalShard
from mimsuite.data.stores.remote import RemoteShard
from mimsuite.data.stores.shard import OpenShard, Shard
from mimsuite.data.stores.shard_cache import ShardCache
from mimsuite.data.stores.url import Url

__all__ = [
    "LocalFile",
    "LocalShard",
    "OpenShard",
    "RemoteShard",
    "Shard",
    "ShardCache",
    "Url",
]
