"""Training reads the same from S3 and the web as from disk, whatever the network does."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch

from mimsuite.cli.main import main
from mimsuite.config.keys.shared import Recipe
from mimsuite.data import open_source, source_splits, train_loader
from mimsuite.data.packing.indexing import index_shards
from mimsuite.data.packing.inspection import inspect
from mimsuite.data.packing.pack import PackOptions, pack
from mimsuite.data.packing.verify import verify
from mimsuite.data.shards.index import to_bytes
from mimsuite.data.shards.scan import scan
from mimsuite.data.source import Source
from mimsuite.data.stores import ShardCache, retry, windows
from mimsuite.errors import DataError, UserError
from tests.data.remote_servers import (
    KEY,
    SECRET,
    Rclone,
    Server,
    files,
    need_rclone,
    relay,
    serving,
)

FAULTS = {
    "none": [],
    "503 twice": ["503", "503"],
    "cut mid-body": ["cut", "", "cut", "cut"],
    "short body": ["short", "", "", "short"],
    "reset": ["reset", "reset", "", "reset"],
    "stall": ["", "stall"],
    "many": ["429", "cut", "", "reset", "", "short", "503", "", "", "cut"],
}


@pytest.fixture(autouse=True)
def _hurry(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Short waits, and windows so small that a test's shards have several."""
    monkeypatch.setattr(retry, "FIRST_WAIT", 0.02)
    monkeypatch.setattr(retry, "STALL_SECONDS", 1.0)
    monkeypatch.setattr(windows, "WINDOW", 8 << 10)
    windows._of_process.cache_clear()
    yield
    windows._of_process.cache_clear()


@pytest.fixture
def packed(tmp_path: Path, make_folder: Callable[..., Path]) -> Path:
    """Root of the servers; ``bucket/set`` in it is a packed set of 45 labelled samples."""
    pack(
        str(make_folder(45, classes=3)),
        tmp_path / "root" / "bucket" / "set",
        PackOptions(shard_size=16),
    )
    return tmp_path / "root"


@pytest.fixture
def web(packed: Path) -> Iterator[Server]:
    with serving(files(packed)) as server:
        yield server


@pytest.fixture
def bucket(packed: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A faulty server in front of a real S3 server."""
    need_rclone()
    rclone = Rclone(packed)
    rclone.start()
    try:
        with serving(relay(rclone.port)) as server:
            server.faults.restart = rclone.restart
            use_s3(monkeypatch, server.address)
            yield server
    finally:
        rclone.stop()


def use_s3(monkeypatch: pytest.MonkeyPatch, address: str, secret: str = SECRET) -> None:

    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)
    monkeypatch.setenv("AWS_ENDPOINT_URL", address)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", secret)


def epoch(source: Source, recipe: Recipe) -> list[tuple[list[str], torch.Tensor, list[int]]]:
    """(keys, images, labels) of every batch of an epoch."""
    with train_loader(source, recipe) as loader:
        batches = [loaded.batch for loaded in islice(loader, loader.steps_per_epoch)]
        assert not loader.damaged
    return [(b.keys, b.image, b.label.tolist()) for b in batches]


def assert_same_epoch(remote: Source, local: Source, recipe: Recipe) -> None:
    expected, found = epoch(local, recipe), epoch(remote, recipe)
    assert [(keys, labels) for keys, _, labels in found] == [(k, n) for k, _, n in expected]
    assert all(torch.equal(a[1], b[1]) for a, b in zip(found, expected, strict=True))
    keys = [key for batch in found for key in batch[0]]
    assert len(set(keys)) == len(keys) == 40


@pytest.mark.parametrize(("faults", "workers"), [*((name, 0) for name in FAULTS), ("many", 2)])
@pytest.mark.parametrize("kind", ["web", "bucket"])
def test_an_epoch_is_that_of_the_local_set(
    kind: str,
    faults: str,
    workers: int,
    packed: Path,
    make_recipe: Callable[..., Recipe],
    request: pytest.FixtureRequest,
) -> None:
    server: Server = request.getfixturevalue(kind)
    spec = f"{server.address}/bucket/set" if kind == "web" else "s3://bucket/set"
    recipe = make_recipe(data={"block": 4, "lanes": 4, "workers": workers})
    local = open_source(str(packed / "bucket/set"))
    server.faults.plan = list(FAULTS[faults])
    source = open_source(spec)
    assert source.counts.tolist() == local.counts.tolist()
    assert source.classes == local.classes
    assert_same_epoch(source, local, recipe)
    assert server.faults.plan == []
    assert server.faults.met == [kind for kind in FAULTS[faults] if kind]
    shards = sum(path.stat().st_size for path in (packed / "bucket/set").glob("*.tar"))
    asked = [wanted for path, wanted in server.faults.asked if ".tar" in path]
    if workers == 0 and faults == "none":
        # Each window once, whatever the order of the samples, and the index beside each shard.
        assert len(asked) <= shards // windows.WINDOW + 3 + 2 * 3
        assert len(set(server.faults.asked)) == len(server.faults.asked)


@pytest.mark.parametrize("workers", [0, 2])
def test_an_s3_server_that_starts_anew_in_the_middle(
    workers: int, bucket: Server, packed: Path, make_recipe: Callable[..., Recipe]
) -> None:
    recipe = make_recipe(data={"block": 4, "lanes": 4, "workers": workers})
    bucket.faults.plan = ["", "", "restart"]
    source = open_source("s3://bucket/set")
    assert_same_epoch(source, open_source(str(packed / "bucket/set")), recipe)
    assert bucket.faults.met == ["restart"]


# --- what names a set ---


def keys_of(source: Source) -> list[str]:
    return [source.key(*source.locate(i)) for i in range(len(source))]


@pytest.mark.parametrize("kind", ["web", "bucket"])
def test_folder_pattern_and_single_shard(
    kind: str, packed: Path, request: pytest.FixtureRequest
) -> None:
    server: Server = request.getfixturevalue(kind)
    base = f"{server.address}/bucket/set" if kind == "web" else "s3://bucket/set"
    local = keys_of(open_source(str(packed / "bucket/set")))
    assert keys_of(open_source(f"{base}/")) == local
    assert keys_of(open_source(f"{base}/train-{{000000..000002}}.tar")) == local
    assert keys_of(open_source(f"{base}/train-000001.tar")) == local[16:32]
    assert source_splits(base) == ["train"]
    with pytest.raises(UserError, match="has no split 'test'; it has: train"):
        open_source(base, "test")
    with pytest.raises(DataError, match=r"one is missing: .*train-000003.tar is not there"):
        open_source(f"{base}/train-{{000000..000003}}.tar")
    with pytest.raises(DataError, match="is compressed"):
        open_source(f"{base}/train.tar.gz")


def test_foreign_shards_are_scanned_once_and_again_when_replaced(
    bucket: Server, packed: Path, make_shards: Callable[..., Path]
) -> None:
    folder = packed / "bucket/foreign"
    make_shards([5, 4], name="root/bucket/foreign")
    first = open_source("s3://bucket/foreign")
    assert keys_of(first) == [f"{i:05d}" for i in range(9)]
    asked = [path for path, wanted in bucket.faults.asked if ".tar" in path]
    bucket.faults.asked.clear()
    assert keys_of(open_source("s3://bucket/foreign")) == keys_of(first)
    assert asked
    assert not [path for path, _ in bucket.faults.asked if ".tar" in path]
    make_shards([3], name="other")
    (folder / "part-001.tar").write_bytes((folder.parents[2] / "other/part-000.tar").read_bytes())
    assert open_source("s3://bucket/foreign").counts.tolist() == [5, 3]


@pytest.mark.parametrize("kind", ["web", "bucket"])
def test_splits_by_sub_folders(
    kind: str, packed: Path, make_folder: Callable[..., Path], request: pytest.FixtureRequest
) -> None:
    for split, count in (("train", 6), ("val", 3)):
        pack(str(make_folder(count, name=split)), packed / "bucket/parts" / split)
    server: Server = request.getfixturevalue(kind)
    spec = f"{server.address}/bucket/parts" if kind == "web" else "s3://bucket/parts"
    assert source_splits(spec) == ["train", "val"]
    assert len(open_source(spec, "validation")) == 3
    assert len(open_source(spec)) == 6


def test_splits_by_keys_and_names(web: Server, packed: Path, write_tar, picture) -> None:
    write_tar(
        packed / "keys.tar",
        {f"{split}/{i}.png": picture(i) for split in ("train", "test") for i in range(3)},
    )
    spec = f"{web.address}/keys.tar"
    assert source_splits(spec) == ["test", "train"]
    assert keys_of(open_source(spec, "test")) == ["test/0", "test/1", "test/2"]
    assert "root" not in str(list(Path(os.environ["MIMSUITE_CACHE"]).rglob("*.tar")))


def test_a_damaged_index_beside_the_shard_is_not_used(
    web: Server, packed: Path, caplog: pytest.LogCaptureFixture
) -> None:
    expected = keys_of(open_source(str(packed / "bucket/set")))
    index = packed / "bucket/set/train-000001.tar.idx"
    content = bytearray(index.read_bytes())
    content[-3] ^= 1
    index.write_bytes(content)
    other = packed / "bucket/set/train-000002.tar.idx"
    other.write_bytes((packed / "bucket/set/train-000000.tar.idx").read_bytes())
    assert keys_of(open_source(f"{web.address}/bucket/set")) == expected
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == 2
    assert all("the shard itself is read" in line for line in lines)


def test_a_page_in_place_of_the_index(
    web: Server, packed: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (packed / "bucket/set/index.json").write_text("<html>no such page</html>")
    spec = f"{web.address}/bucket/set"
    with pytest.raises(DataError, match=r"index\.json is no shard index"):
        open_source(spec)
    assert len(open_source(f"{spec}/train-000000.tar")) == 16
    (record,) = caplog.records
    assert record.getMessage().startswith("not used: ")


@pytest.mark.parametrize(
    ("column", "value"),
    [("offset", 1 << 40), ("size", 1 << 27), ("extension", 9), ("offset", (1 << 64) - 600)],
)
def test_an_index_that_leads_out_of_its_shard_is_not_used(
    column: str, value: int, web: Server, packed: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shard = packed / "bucket/set/train-000001.tar"
    expected = keys_of(open_source(str(packed / "bucket/set")))
    found = scan(shard)
    found.members[column][3] = value
    shard.with_name(shard.name + ".idx").write_bytes(to_bytes(found))
    source = open_source(f"{web.address}/bucket/set")
    assert keys_of(source) == expected
    assert len(source.payload(1, 1)) > 60
    (record,) = caplog.records
    assert "is damaged: the shard itself is read" in record.getMessage()


def test_a_flipped_bit_is_found_by_its_checksum(
    web: Server, packed: Path, make_recipe: Callable[..., Recipe]
) -> None:
    shard = packed / "bucket/set/train-000001.tar"
    content = bytearray(shard.read_bytes())
    members = scan(shard).members
    image = members[members["size"].argmax()]
    content[int(image["offset"]) + 40] ^= 4
    shard.write_bytes(content)
    source = open_source(f"{web.address}/bucket/set")
    with train_loader(source, make_recipe()) as loader:
        for _ in islice(loader, 2 * loader.steps_per_epoch):
            pass
    assert [(damage.kind, damage.shard) for damage in loader.damaged] == [("crc", shard.name)]


# --- what is refused, and what ends a run ---


def test_what_is_not_there_or_denied(
    web: Server, bucket: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UserError, match=r"there is no index\.json, and a web server cannot be li"):
        open_source(f"{web.address}/bucket/none")
    with pytest.raises(UserError, match=r"s3://bucket/none: there are no \.tar shards"):
        open_source("s3://bucket/none")
    web.faults.plan = ["403"]
    with pytest.raises(UserError, match=r"train-000000\.tar: access denied .*403"):
        open_source(f"{web.address}/bucket/train-000000.tar")
    use_s3(monkeypatch, bucket.address, secret="x" * 30)
    for spec in ("s3://bucket/set", "s3://bucket/set/train-000000.tar"):
        with pytest.raises(UserError, match=r"access denied .*403.*AWS_SECRET_ACCESS_KEY"):
            open_source(spec)


@pytest.mark.parametrize("kind", ["web", "bucket"])
def test_an_object_that_changes_while_it_is_read(
    kind: str, packed: Path, request: pytest.FixtureRequest
) -> None:
    server: Server = request.getfixturevalue(kind)
    source = open_source(f"{server.address}/bucket/set" if kind == "web" else "s3://bucket/set")
    source.payload(0, 0)
    shard = packed / "bucket/set/train-000000.tar"
    content = bytearray(shard.read_bytes())
    content[-1] ^= 1
    shard.write_bytes(content)
    os.utime(shard, ns=(1, 1))
    with pytest.raises(DataError, match=r"train-000000\.tar changed: it has"):
        read_shard(source)
    shard.unlink()
    with pytest.raises(DataError, match=r"train-000000\.tar is not there .*404"):
        read_shard(source)


def read_shard(source: Source) -> list[bytes | np.ndarray]:
    return [source.payload(0, offset) for offset in range(16)]


def test_a_shard_of_another_size_than_listed(web: Server, packed: Path) -> None:
    shard = packed / "bucket/set/train-000000.tar"
    source = open_source(f"{web.address}/bucket/set")
    shard.write_bytes(shard.read_bytes() + bytes(512))
    with pytest.raises(DataError, match=r"train-000000\.tar changed: it has \d+ bytes"):
        source.payload(0, 0)


def test_tries_end_with_one_line(
    web: Server, monkeypatch: pytest.MonkeyPatch, make_recipe: Callable[..., Recipe]
) -> None:
    monkeypatch.setattr(retry, "FIRST_WAIT", 0.001)
    source = open_source(f"{web.address}/bucket/set")
    web.faults.plan = ["503"] * 100
    with pytest.raises(
        retry.Unreachable, match=r"the server answers 503, after 8 tries; check the server"
    ):
        source.payload(0, 0)
    assert len(web.faults.met) == retry.TRIES
    with (
        pytest.raises(retry.Unreachable, match="after 8 tries"),  # also out of a worker
        train_loader(source, make_recipe(data={"workers": 1})) as loader,
    ):
        next(iter(loader))


def test_a_server_without_ranges(web: Server, packed: Path, tmp_path: Path) -> None:
    with serving(files(packed, ranges=False)) as plain:
        spec = f"{plain.address}/bucket/set"
        source = open_source(spec)
        with pytest.raises(DataError, match=r"does not serve ranges of bytes; set data\.cache"):
            [source.payload(1, offset) for offset in range(16)]
        plain.faults.plan = ["cut", "cut"]
        cached = open_source(spec, cache=ShardCache(tmp_path / "cached"))
        local = open_source(str(packed / "bucket/set"))
        assert all(cached.payload(1, i) == local.payload(1, i) for i in range(16))
        assert plain.faults.met == ["cut", "cut"]


@pytest.mark.parametrize(
    "spec",
    [
        "{pipe,http}://127.0.0.1/x.tar",
        "{pipe,s3}:touch x",
        "s3://bucket/../../etc/x.tar",
        "https://host/%2e%2e/x.tar",
        "s3:///x.tar",
        "http://",
        "ftp://host/x.tar",
        "s3://b/a b.tar",
        "{s3://b/x,y}.tar",
        "{s3,http}://127.0.0.1/x.zip",
    ],
)
def test_addresses_that_are_refused(spec: str, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError):
        open_source(spec)
    assert not list(tmp_path.iterdir())


def test_rewriting_of_addresses_is_dropped(web: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOPEN_REWRITE", "http:=pipe:touch")
    open_source(f"{web.address}/bucket/set")
    assert "GOPEN_REWRITE" not in os.environ


def test_without_s3fs_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    use_s3(monkeypatch, "http://127.0.0.1:9")  # settings that were not used before
    monkeypatch.setitem(sys.modules, "s3fs", None)
    with pytest.raises(UserError, match=r"pip install 'mimsuite\[cloud\]'"):
        open_source("s3://bucket/set")


# --- through the command line ---

RECIPE = "image/mae-tiny-fashion"
SMALL = ("--smoke", "train.global_batch=8", "train.device=cpu", "data.workers=2")


def losses(run: Path) -> list[float]:
    lines = (run / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line)["loss"] for line in lines if "loss" in json.loads(line)]


def test_pretraining_from_s3_has_the_losses_of_the_local_run(
    bucket: Server, packed: Path, tmp_path: Path
) -> None:
    bucket.faults.plan = ["", "503", "cut", "", "reset"]
    sources = {"local": str(packed / "bucket/set"), "s3": "s3://bucket/set"}
    for name, source in sources.items():
        out = str(tmp_path / name)
        assert main(["pretrain", RECIPE, "--data", source, "--out", out, *SMALL]) == 0
    assert len(losses(tmp_path / "local")) > 1
    assert losses(tmp_path / "s3") == losses(tmp_path / "local")
    assert bucket.faults.plan == []


@pytest.mark.parametrize(
    ("spec", "code", "words"),
    [
        ("s3://bucket/none", 2, "there are no .tar shards"),
        ("s3://bucket/set/other-{0..1}.tar", 3, "is not there"),
        ("s3://denied/set", 2, "access denied"),
    ],
)
def test_one_line_and_the_exit_code(
    spec: str,
    code: int,
    words: str,
    bucket: Server,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if "denied" in spec:
        use_s3(monkeypatch, bucket.address, secret="x" * 30)
    capfd.readouterr()
    out = str(tmp_path / "run")
    assert main(["pretrain", RECIPE, "--data", spec, "--out", out, *SMALL]) == code
    err = capfd.readouterr().err.splitlines()
    assert len(err) == 1
    assert words in err[0]
    assert spec.split("{")[0] in err[0]


def test_inspect_and_verify(web: Server, packed: Path) -> None:
    spec = f"{web.address}/bucket/set"
    assert inspect(spec)["splits"]["train"]["samples"] == 45
    for name in (spec, f"{spec}/train-{{000000..000002}}.tar"):
        assert [report.problems for report in verify(name)] == [[]]
    shard = packed / "bucket/set/train-000001.tar"
    content = bytearray(shard.read_bytes())
    content[int(scan(shard).members["offset"][1]) + 40] ^= 4
    shard.write_bytes(content)
    (report,) = verify(spec)
    assert len(report.problems) == 1
    assert "crc" in report.problems[0]
    with pytest.raises(UserError, match="only local shards are indexed"):
        index_shards(spec)
