"""A set of a million samples is resumed at once, in little memory."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from mimsuite.data.shards.index import to_bytes
from mimsuite.data.shards.manifest import Manifest, ShardEntry
from mimsuite.data.shards.scan import MEMBER, Scan

SHARDS, EACH = 500, 2000

RESUME = """
import json, resource, sys, time
import torch
from mimsuite.data import open_source, train_loader
from tests.data.conftest import bare_recipe

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize() / 2**20

recipe = bare_recipe(train={"global_batch": 4096}, data={"workers": 0})
before, begun = resident(), time.process_time()
source = open_source(sys.argv[1])
loader = train_loader(source, recipe, start_step=100_000)
reader = loader._dataset.reader
keys = []
for row in range(4096):
    block, place = reader.plan.find(100_000, *divmod(row, reader.plan.lanes))
    keys.append(source.key(*reader._samples_of(block)[place]))
print(json.dumps({
    "seconds": time.process_time() - begun, "mib": resident() - before,
    "samples": len(source), "keys": len(set(keys)), "open": len(source._shards),
}))
"""


@pytest.fixture(scope="module")
def million(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards of holes, with the indexes that such shards would have."""
    folder = tmp_path_factory.mktemp("million")
    entries = []
    for shard in range(SHARDS):
        members = np.zeros(EACH, dtype=MEMBER)
        members["offset"] = np.arange(EACH) * 102_400 + 512
        members["size"] = 100_000
        members["sample"] = np.arange(EACH)
        path = folder / f"train-{shard:06d}.tar"
        size = EACH * 102_400
        with path.open("wb") as file:
            file.truncate(size)
        keys = [f"{shard:06d}{number:06d}" for number in range(EACH)]
        found = Scan(size, keys, ["jpg"], members, None, [], {})
        path.with_name(f"{path.name}.idx").write_bytes(to_bytes(found))
        entries.append(ShardEntry(name=path.name, bytes=size, samples=EACH, sha256="0" * 64))
    Manifest(extensions=["jpg"], shards=entries).write(folder)
    return folder


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_a_million_samples_are_resumed_at_once_in_little_memory(million: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", RESUME, str(million)], capture_output=True, text=True, check=True
    )
    figures = json.loads(done.stdout)
    print(figures)
    assert figures["samples"] == SHARDS * EACH
    assert figures["keys"] == 4096
    assert figures["seconds"] < 2
    assert figures["mib"] < 200
