"""Checks access and speed of a remote data set, with the suite's own reader."""

from __future__ import annotations

import statistics
import time

from mimsuite.doctor.findings import Finding
from mimsuite.errors import MimsuiteError

_LOOKS = 5
_MOST = 64 << 20  # limit of bytes to read
_TRIES = 2  # single failures are common in networks; training retries more often
_SLOW = 50e6  # bytes per second below which a store counts as slow


def check_store(spec: str) -> Finding:
    """Time requests for the first shard of a set.

    Args:
        spec: a source as in ``--data``: an ``s3:``, ``https:`` or ``http:`` URL.
    """
    from mimsuite.data.shards import remote_set
    from mimsuite.data.shards.names import places_of
    from mimsuite.data.stores import RemoteShard, Url, retry
    from mimsuite.data.stores.transfer import Transfer, look

    tries, retry.TRIES = retry.TRIES, _TRIES
    try:
        urls = [place for place in places_of(spec) if isinstance(place, Url)]
        if not urls:
            return Finding("store", "ok", f"{spec} is local")
        shards = remote_set.find(spec, urls, None).by_split.values()
        shard = next(one for some in shards for one in some)
        assert isinstance(shard, RemoteShard)
        seconds = []
        for _ in range(_LOOKS):
            begun = time.perf_counter()
            version = look(shard.url)
            seconds.append(time.perf_counter() - begun)
        size = min(version.size, _MOST)
        begun = time.perf_counter()
        first = 0.0
        for _piece in Transfer(shard.url, version).chunks(0, size):
            first = first or time.perf_counter() - begun
        rate = size / (time.perf_counter() - begun)
    except MimsuiteError as error:
        mend = "check address, network and credentials"
        return Finding("store", "missing", str(error), mend)
    finally:
        retry.TRIES = tries
    latency = statistics.median(seconds)
    facts = {
        "shard": str(shard.url),
        "latency_seconds": latency,
        "first_byte_seconds": first,
        "bytes_per_second": rate,
        "bytes_read": size,
    }
    value = (
        f"{shard.url}: answers in {latency * 1e3:.1f} ms, first byte after {first * 1e3:.1f} ms, "
        f"{rate / 1e6:.0f} MB/s over {size / 1e6:.1f} MB"
    )
    if rate < _SLOW and size == _MOST:
        return Finding("store", "note", value, "data.cache=DIR keeps shards on a local disk", facts)
    return Finding("store", "ok", value, facts=facts)
