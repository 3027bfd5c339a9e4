"""The folder of whole shards: checked, bounded, shared."""

from __future__ import annotations

import hashlib
import json
import logging
import multiprocessing
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mimsuite.data import open_source
from mimsuite.data.packing.pack import PackOptions, pack
from mimsuite.data.stores import RemoteShard, ShardCache, Url, retry, shard_cache
from mimsuite.data.stores.transfer import Version
from mimsuite.errors import DataError, UserError
from tests.data.remote_servers import Server, files, serving

SIZE = 100_000


@pytest.fixture(autouse=True)
def _fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "FIRST_WAIT", 0.02)
    monkeypatch.setattr(shard_cache, "_checked", {})


@pytest.fixture
def web(tmp_path: Path) -> Iterator[Server]:
    root = tmp_path / "root"
    root.mkdir()
    for name in "abcd":
        (root / f"{name}.tar").write_bytes(content(name))
    with serving(files(root)) as server:
        yield server


def content(name: str) -> bytes:
    return (name.encode() * 7 + b"-") * (SIZE // 8)


def shard(web: Server, name: str, cache: ShardCache, sha256: str | None = None) -> RemoteShard:
    url = Url.parse(f"{web.address}/{name}.tar")
    return RemoteShard(url, Version(SIZE), sha256, cache)


def read(one: RemoteShard) -> bytes:
    file = one.open()
    data = file.pread(SIZE, 0)
    file.close()
    return data


def held(cache: ShardCache) -> list[str]:
    return sorted(path.name[17] for path in cache.folder.glob("*.tar"))


def test_a_shard_is_fetched_once(web: Server, tmp_path: Path) -> None:
    cache = ShardCache(tmp_path / "cache")
    web.faults.plan = ["cut", "503", "short"]
    for _ in range(3):
        assert read(shard(web, "a", cache)) == content("a")
    asked = [wanted for _, wanted in web.faults.asked]
    assert len(asked) == 4
    assert asked[1] != asked[0]  # goes on where the first was cut
    assert sorted(path.suffix for path in cache.folder.iterdir()) == [".json", ".tar"]


def test_what_was_not_opened_for_longest_makes_room(web: Server, tmp_path: Path) -> None:
    cache = ShardCache(tmp_path / "cache", gib=2.5 * SIZE / 2**30)
    for number, name in enumerate("abac"):
        one = shard(web, name, cache)
        read(one)
        (path,) = cache.folder.glob(f"*-{name}.tar")
        os.utime(path, (number, number))
    assert held(cache) == ["a", "c"]
    opened = shard(web, "a", cache).open()
    for name in "bd":
        read(shard(web, name, cache))
    assert held(cache) == ["b", "d"]
    assert opened.pread(SIZE, 0) == content("a")  # who reads it keeps it
    opened.close()
    assert len(list(cache.folder.glob("*.json"))) == 2
    with pytest.raises(UserError, match=r"more than data\.cache_gib=5e-05 allows"):
        read(shard(web, "a", ShardCache(tmp_path / "cache", gib=5e-5)))


@pytest.mark.parametrize("harm", ["bit", "cut", "no note"])
def test_a_damaged_shard_is_found_and_fetched_again(
    harm: str,
    web: Server,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cache = ShardCache(tmp_path / "cache")
    one = shard(web, "a", cache)
    read(one)
    (path,) = cache.folder.glob("*.tar")
    if harm == "no note":
        path.with_name(path.name + ".json").write_text("{")
    else:
        data = bytearray(path.read_bytes())
        data[5000] ^= 16
        path.write_bytes(data if harm == "bit" else data[:-1])
    monkeypatch.setattr(shard_cache, "_checked", {})  # as in another process
    with caplog.at_level(logging.WARNING):
        assert read(one) == content("a")
    assert [r.getMessage().partition(" is ")[2] for r in caplog.records] == [
        "damaged: it is fetched again"
    ]
    caplog.clear()
    monkeypatch.setattr(shard_cache, "_checked", {})
    assert read(one) == content("a")
    assert not caplog.records


def test_another_checksum_than_listed(web: Server, tmp_path: Path) -> None:
    cache = ShardCache(tmp_path / "cache")
    right = hashlib.sha256(content("a")).hexdigest()
    assert read(shard(web, "a", cache, right)) == content("a")
    with pytest.raises(DataError, match=r"a\.tar has another SHA-256 than index\.json says"):
        read(shard(web, "a", cache, "0" * 64))
    assert held(cache) == ["a"]
    assert not list(cache.folder.glob("*.part"))


def test_what_a_killed_process_left_makes_room_too(web: Server, tmp_path: Path) -> None:
    cache = ShardCache(tmp_path / "cache", gib=2.5 * SIZE / 2**30)
    cache.folder.mkdir()
    (cache.folder / "0123456789abcdef-x.tar.part").write_bytes(bytes(2 * SIZE))
    read(shard(web, "a", cache))
    assert [path.suffix for path in sorted(cache.folder.iterdir())] == [".tar", ".json"]


def test_a_folder_that_cannot_be_written(web: Server, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"data\.cache=.*file: .*name another folder"):
        read(shard(web, "a", ShardCache(tmp_path / "file")))


def _read_all(address: str, folder: str, seed: int, answers: multiprocessing.Queue) -> None:
    cache = ShardCache(Path(folder), gib=2.5 * SIZE / 2**30)
    sound = 0
    for number in range(12):
        name = "abcd"[(number * seed + number // 4) % 4]
        url = Url.parse(f"{address}/{name}.tar")
        sound += read(RemoteShard(url, Version(SIZE), None, cache)) == content(name)
    answers.put(sound)


def test_two_processes_share_it(web: Server, tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    answers = context.Queue()
    folder = str(tmp_path / "cache")
    processes = [
        context.Process(target=_read_all, args=(web.address, folder, seed, answers))
        for seed in (1, 3)
    ]
    for process in processes:
        process.start()
    assert [answers.get(timeout=20) for _ in processes] == [12, 12]
    for process in processes:
        process.join()
    left = list((tmp_path / "cache").iterdir())
    assert sum(path.stat().st_size for path in left if path.suffix == ".tar") <= 2.5 * SIZE
    assert {path.suffix for path in left} <= {".tar", ".json"}


def test_two_processes_fetch_a_shard_once(web: Server, tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    cache = ShardCache(tmp_path / "cache")
    web.faults.plan = ["stall"]
    retry_seconds, retry.STALL_SECONDS = retry.STALL_SECONDS, 0.5
    try:
        processes = [context.Process(target=shard(web, "a", cache).open) for _ in range(2)]
        for process in processes:
            process.start()
        for process in processes:
            process.join()
            assert process.exitcode == 0
    finally:
        retry.STALL_SECONDS = retry_seconds
    assert len(web.faults.asked) == 2  # the stalled one, and the rest of it
    assert held(cache) == ["a"]


def test_names_of_objects_do_not_leave_the_folder(web: Server, tmp_path: Path) -> None:
    cache = ShardCache(tmp_path / "in" / "cache")
    for name in ("%2e%2e%2fout.tar", "..%5cout.tar", "a%00b.tar", "ä" * 200 + ".tar"):
        url = Url(f"{web.address}/x/{name}")
        path = cache._path(url, Version(1), None)
        assert path.parent == cache.folder
        assert path.name.isascii()
        assert len(path.name) < 128


def test_training_reads_through_it(
    tmp_path: Path, make_folder: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    pack(str(make_folder(20)), tmp_path / "set", PackOptions(shard_size=5))
    local = open_source(str(tmp_path / "set"))
    one = max(path.stat().st_size for path in (tmp_path / "set").glob("*.tar"))
    cache = ShardCache(tmp_path / "cache", gib=2.2 * one / 2**30)
    with serving(files(tmp_path)) as server:
        source = open_source(f"{server.address}/set", cache=cache)
        for position in (*range(20), *range(20)):
            address = source.locate(position)
            assert source.read(*address) == local.read(*local.locate(position))
    notes = [json.loads(path.read_text()) for path in cache.folder.glob("*.json")]
    assert len(notes) == 2
    assert all(note["url"].startswith(server.address) for note in notes)


def test_evicted_shards_that_nobody_reads_any_more_do_not_fill_the_disk(
    web: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reader keeps shards open, and what is open takes space, whatever its name."""
    cache = ShardCache(tmp_path / "cache", gib=1.5 * SIZE / 2**30)
    monkeypatch.setattr(shard_cache, "_IDLE_SECONDS", 0.05)

    def kept() -> int:
        links = [Path(f"/proc/self/fd/{name}") for name in os.listdir("/proc/self/fd")]
        targets = [str(link.readlink()) for link in links if link.is_symlink()]
        return sum(str(cache.folder) in target for target in targets)

    opened = []
    for name in "abcd":
        opened.append(shard(web, name, cache).open())
        assert opened[0].pread(3, 0) == content("a")[:3]  # in use, so it is not fetched again
        time.sleep(0.1 if name == "c" else 0)
        opened[0].pread(1, 0)
    assert kept() == 2  # "a", which is read, and "d"
    assert len(web.faults.asked) == 4
    assert [one.pread(SIZE, 0) for one in opened] == [content(name) for name in "abcd"]
    for one in opened:
        one.close()
    assert kept() == 0
