"""A set of very many shards opens by its ``index.json``: no index is read before its shard is."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from mimsuite.data import open_source
from mimsuite.data.packing.indexing import index_shards
from mimsuite.data.shards import index as indexes
from mimsuite.data.shards.facts import ShardFacts
from mimsuite.data.shards.index import to_bytes
from mimsuite.data.shards.manifest import Manifest, ShardEntry, sha256_of
from mimsuite.data.shards.scan import MEMBER, Scan, scan, scan_hashed
from mimsuite.errors import DataError

SIZE, EACH = 10_240, 4

OPEN = """
import json, resource, sys, time
from mimsuite.data import open_source
import mimsuite.data.shards, mimsuite.data.sources.training_set

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize() / 2**20

before, begun = resident(), time.process_time()
source = open_source(sys.argv[1])
print(json.dumps({
    "seconds": time.process_time() - begun, "mib": resident() - before, "samples": len(source),
    "key": source.key(*source.locate(len(source) - 1)),
}))
"""


def many_shards(folder: Path, shards: int) -> Path:
    """Shards of holes with ``index.json``, and the index of the last one."""
    members = np.zeros(EACH, dtype=MEMBER)
    members["offset"] = np.arange(EACH) * 1024 + 512
    members["size"], members["sample"] = 100, np.arange(EACH)
    index = to_bytes(Scan(SIZE, [f"{number:04d}" for number in range(EACH)], ["jpg"], members))
    names = [f"train-{number:06d}.tar" for number in range(shards)]
    for name in names:
        with (folder / name).open("wb") as file:
            file.truncate(SIZE)
    (folder / f"{names[-1]}.idx").write_bytes(index)
    total = shards * EACH
    Manifest(
        extensions=["jpg"],
        shards=[ShardEntry(name, SIZE, EACH, f"{n:064x}") for n, name in enumerate(names)],
        facts={"train": ShardFacts(samples=total, members=total, counts={"jpg": total})},
    ).write(folder)
    return folder


def test_no_index_is_read_before_its_shard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = many_shards(tmp_path, 5000)
    read, tables, plain = list[Path](), list[int](), indexes.read_header
    monkeypatch.setattr(indexes, "read_header", lambda path: read.append(path) or plain(path))
    by_name = Manifest.by_name
    monkeypatch.setattr(by_name, "func", lambda m, func=by_name.func: tables.append(1) or func(m))
    source = open_source(str(folder))
    assert len(source) == 5000 * EACH
    assert read == []
    assert source.key(4999, 3) == "0003"
    assert [path.name for path in read] == ["train-004999.tar.idx"]
    assert len(tables) == 1  # the table of names is built once, however many shards look in it


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_a_hundred_thousand_shards_open_at_once_in_little_memory(tmp_path: Path) -> None:
    folder = many_shards(tmp_path, 100_000)
    done = subprocess.run(
        [sys.executable, "-c", OPEN, str(folder)], capture_output=True, text=True, check=True
    )
    figures = json.loads(done.stdout)
    print(figures)
    assert (figures["samples"], figures["key"]) == (100_000 * EACH, "0003")
    assert figures["seconds"] < 3
    assert figures["mib"] < 100


def test_an_older_list_is_opened_by_its_indexes_and_made_new(
    make_shards: Callable[..., Path],
) -> None:
    folder = make_shards([4, 2])
    index_shards(str(folder))
    path = folder / "index.json"
    new = json.loads(path.read_text())
    old = {name: value for name, value in new.items() if name != "facts"}
    path.write_text(json.dumps(old))
    before = open_source(str(folder))
    index_shards(str(folder), workers=2)
    assert json.loads(path.read_text()) == new
    now = open_source(str(folder))
    assert [*now.counts] == [*before.counts] == [4, 2]
    assert (now.facts, now.classes) == (before.facts, before.classes)
    assert [now.key(*now.locate(n)) for n in range(6)] == [
        before.key(*before.locate(n)) for n in range(6)
    ]


def test_a_shard_that_changed_is_refused_without_reading_it(
    make_shards: Callable[..., Path],
) -> None:
    folder = make_shards([4, 2])
    index_shards(str(folder))
    shard = sorted(folder.glob("*.tar"))[1]
    shard.write_bytes(shard.read_bytes()[:-512])
    with pytest.raises(DataError, match=r"bytes, index\.json says"):
        open_source(str(folder))


def test_a_list_of_other_counts_than_the_shard_is_found_as_the_shard_is_opened(
    make_shards: Callable[..., Path],
) -> None:
    folder = make_shards([4, 2])
    index_shards(str(folder))
    path = folder / "index.json"
    listed = json.loads(path.read_text())
    listed["shards"][0]["samples"], listed["shards"][1]["samples"] = 3, 3
    path.write_text(json.dumps(listed))
    source = open_source(str(folder))
    with pytest.raises(DataError, match="counts other samples"):
        source.key(0, 0)


def test_a_shard_is_hashed_as_it_is_scanned(make_shards: Callable[..., Path]) -> None:
    shard = sorted(make_shards([5]).glob("*.tar"))[0]
    found, digest = scan_hashed(shard)
    assert digest == sha256_of(shard)
    assert found.keys == scan(shard).keys
