"""Tar shards: foreign ones are read, ours by others, and no damage goes unseen."""

from __future__ import annotations

import io
import json
import os
import pickle
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import webdataset as wds
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mimsuite.data import CorruptSample, open_source, source_splits
from mimsuite.data.shards import build_index, open_index
from mimsuite.data.shards.index import load_tables
from mimsuite.data.shards.manifest import Manifest, ShardEntry, sha256_of
from mimsuite.data.shards.scan import scan, split_name
from mimsuite.errors import DataError, UserError


def contents(source) -> dict[str, tuple[bytes, int | None]]:
    samples = [source.read(*source.locate(i)) for i in range(len(source))]
    return {sample.key: (sample.payload, sample.label) for sample in samples}


def test_folder_pattern_and_single_shard_are_the_same(
    make_shards: Callable[..., Path],
) -> None:
    folder = make_shards([3, 4])
    whole = open_source(str(folder))
    assert whole.counts.tolist() == [3, 4]
    assert contents(whole) == contents(open_source(f"{folder}/part-{{000..001}}.tar"))
    assert contents(whole) == contents(open_source(f"file:{folder}/part-{{000..001}}.tar"))
    assert len(open_source(f"{folder}/part-000.tar")) == 3
    again = pickle.loads(pickle.dumps(whole))
    assert contents(again) == contents(whole)
    assert {key: label for key, (_, label) in contents(whole).items()} == {
        f"{i:05d}": i % 3 for i in range(7)
    }
    with pytest.raises(
        DataError, match=r"1 of 3 shards of .* are missing, the first is .*part-002"
    ):
        open_source(f"{folder}/part-{{000..002}}.tar")


def test_shards_written_by_webdataset(tmp_path: Path, picture: Callable[..., bytes]) -> None:
    path = tmp_path / "foreign-000.tar"
    with path.open("wb") as file, wds.TarWriter(file) as writer:
        for i in range(12):
            writer.write(
                {
                    "__key__": f"dir/{i:04d}",
                    "jpg": picture(i, "JPEG"),
                    "cls": i,
                    "json": {"i": i},
                    "seg.png": picture(i + 100),
                }
            )
    found = contents(open_source(str(path)))
    assert found == {f"dir/{i:04d}": (picture(i, "JPEG"), i) for i in range(12)}


def test_class_names_in_labels(write_tar: Callable[..., Path], tmp_path: Path, picture) -> None:
    image = picture(0)
    train = {"a.png": image, "a.cls": b"zebra\n", "b.png": image, "b.cls": b"ant"}
    write_tar(tmp_path / "set/x-train-0.tar", train)
    write_tar(tmp_path / "set/x-validation-0.tar", {"c.png": image, "c.cls": b"zebra"})
    val = open_source(str(tmp_path / "set"), "val")
    assert val.classes == ["ant", "zebra"]
    assert val.labels().tolist() == [1]


def test_splits_by_name_key_and_folder(
    write_tar: Callable[..., Path], tmp_path: Path, picture
) -> None:
    image = picture(0)
    write_tar(tmp_path / "names/train-000.tar", {"a.png": image})
    write_tar(tmp_path / "names/val-000.tar", {"b.png": image})
    write_tar(tmp_path / "folders/train/0.tar", {"a.png": image})
    write_tar(tmp_path / "folders/val/0.tar", {"b.png": image})
    members = [("train/a.png", image), ("val/b.png", image), ("classes.json", b'["x"]')]
    write_tar(tmp_path / "keys/0.tar", members)
    for name in ("names", "folders", "keys"):
        spec = str(tmp_path / name)
        assert source_splits(spec) == ["train", "val"]
        assert [k[-1] for k in contents(open_source(spec, "val"))] == ["b"]
        with pytest.raises(UserError, match="has no split 'test'; it has: train, val"):
            open_source(spec, "test")
    assert open_source(str(tmp_path / "keys"), "val").classes == ["x"]
    one = f"{tmp_path}/names/val-000.tar"
    with pytest.raises(UserError, match="has no split 'train'; it has: val"):
        open_source(one)


def test_names_split_as_webdataset_does() -> None:
    assert split_name("a.b/c.d.JPG") == ("a.b/c", "d.jpg")
    assert split_name("./a.png") == ("a", "png")
    assert split_name("._a.png") is None
    assert split_name("README") is None
    assert split_name("x/__info__.json") is None


def test_extensions_outside_the_list_are_never_read(
    write_tar: Callable[..., Path], tmp_path: Path, picture
) -> None:
    bomb = b"cos\nsystem\n(S'touch /tmp/owned'\ntR."
    members = {"a.pkl": bomb, "a.png": picture(1), "a.pyd": bomb, "a.pth": bomb}
    path = write_tar(tmp_path / "x.tar", members)
    assert scan(path).extensions == ["png"]
    assert contents(open_source(str(path))) == {"a": (picture(1), None)}


# --- damage ---


def refused(path: Path, match: str) -> None:
    with pytest.raises(DataError, match=match) as fault:
        open_source(str(path))
    assert path.name in str(fault.value)
    assert "\n" not in str(fault.value)


def test_every_cut_is_found(make_shards: Callable[..., Path], tmp_path: Path) -> None:
    data = (make_shards([6]) / "part-000.tar").read_bytes()
    end = max(i for i, byte in enumerate(data) if byte)
    cut = tmp_path / "cut.tar"
    for size in [0, 1, 511, *range(512, end, 512), *range(700, end, 997), end + 2]:
        cut.write_bytes(data[:size])
        with pytest.raises(DataError, match=r"cut\.tar"):
            scan(cut)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.data())
def test_every_flipped_bit_is_found_or_harmless(
    make_shards: Callable[..., Path], tmp_path: Path, data: st.DataObject
) -> None:
    """With the index at hand, content is never taken with another value than was indexed."""
    path = tmp_path / "shards" / "part-000.tar"
    if not path.exists():
        make_shards([4])
        build_index(path)
        (tmp_path / "sound").write_bytes(path.read_bytes())
    sound = (tmp_path / "sound").read_bytes()
    expected = contents(open_source(str(path)))
    at, bit = data.draw(st.integers(0, len(sound) - 1)), data.draw(st.integers(0, 7))
    flipped = bytearray(sound)
    flipped[at] ^= 1 << bit
    path.write_bytes(flipped)
    source = open_source(str(path))
    faults = []
    for position in range(len(source)):
        try:
            sample = source.read(*source.locate(position))
        except CorruptSample as fault:
            faults.append(fault.kind)
        else:
            assert expected[sample.key] == (sample.payload, sample.label)
    assert faults in ([], ["crc"])
    path.write_bytes(sound)


def test_flipped_bit_by_verify_key(make_shards: Callable[..., Path]) -> None:
    path = make_shards([4]) / "part-000.tar"
    source = open_source(str(path))
    at = int(source._payload_member(0, 2)["offset"]) + 60
    data = bytearray(path.read_bytes())
    data[at] ^= 4
    path.write_bytes(data)
    with pytest.raises(CorruptSample, match="bytes changed since"):
        open_source(str(path)).payload(0, 2)
    assert open_source(str(path), verify="size").payload(0, 2)[60] == data[at]


def test_structural_faults_are_named(
    write_tar: Callable[..., Path], tmp_path: Path, picture
) -> None:
    image, path = picture(0), tmp_path / "bad.tar"
    write_tar(path, [("a.png", image), ("a.png", image)])
    refused(path, r"member 'a\.png' is there twice")
    write_tar(path, {"b.jpg.gz": b"x"})
    refused(path, r"no samples with an image in it; there are compressed \.gz members")
    write_tar(path, {"a.txt": b"x"})
    refused(path, "no samples with an image")
    write_tar(path, {"a.png": image, "classes.json": b"{}"})
    refused(path, r"classes\.json is no list of names")
    path.write_bytes(write_tar(path, {"a.png": image}).read_bytes() * 2)
    refused(path, "data after the end of the archive")
    path.write_bytes(b"\x1f\x8b" + b"x" * 2000)
    refused(path, r"compressed \(gzip\)")


def test_bad_header_in_the_middle_is_found(make_shards: Callable[..., Path]) -> None:
    """Python's tarfile, and webdataset with it, would end here without a word."""
    path = make_shards([6]) / "part-000.tar"
    with tarfile.open(path) as archive:
        at = archive.getmembers()[4].offset
    data = bytearray(path.read_bytes())
    data[at + 10] ^= 1
    path.write_bytes(data)
    refused(path, f"bad header at byte {at}")


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE])
def test_what_is_no_file_is_left_out_and_counted(
    kind: bytes, tmp_path: Path, picture: Callable[..., bytes]
) -> None:
    path = tmp_path / "links.tar"
    with tarfile.open(path, "w") as archive:
        info = tarfile.TarInfo("a.png")
        info.size = len(picture(0))
        archive.addfile(info, io.BytesIO(picture(0)))
        link = tarfile.TarInfo("b.png")
        link.type, link.linkname = kind, "/etc/passwd"
        archive.addfile(link)
    source = open_source(str(path))
    assert contents(source) == {"a": (picture(0), None)}
    (line,) = source.unused.lines()
    assert line.endswith("(1): b.png")


def test_claimed_terabyte_is_refused(tmp_path: Path) -> None:
    info = tarfile.TarInfo("a.png")
    info.size = 1 << 40
    path = tmp_path / "huge.tar"
    path.write_bytes(info.tobuf(tarfile.GNU_FORMAT) + b"\0" * 10240)
    refused(path, r"claims 1099511627776 bytes|unreadable or cut off")


def test_compressed_shards_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.tar.gz"
    path.write_bytes(b"x")
    with pytest.raises(DataError, match="is compressed: unpack it"):
        open_source(str(path))


# --- index ---


def test_index_lies_beside_or_in_the_cache(
    make_shards: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make_shards([4]) / "part-000.tar"
    assert open_index(path).path == path.with_name("part-000.tar.idx")
    cached = open_index(path, beside=False).path
    assert cached.is_relative_to(os.environ["MIMSUITE_CACHE"])
    path.with_name("part-000.tar.idx").unlink()
    assert open_index(path).path == cached
    assert list(load_tables(open_index(path)).keys) == [f"{i:05d}" for i in range(4)]


def test_damaged_or_outdated_index_is_refused(make_shards: Callable[..., Path]) -> None:
    path = make_shards([4]) / "part-000.tar"
    index = build_index(path).path
    sound = index.read_bytes()
    for at in (3, 40, len(sound) - 2):
        damaged = bytearray(sound)
        damaged[at] ^= 1
        index.write_bytes(damaged)
        with pytest.raises(DataError, match=r"index .*idx is damaged: run `mimsuite data index`"):
            contents(open_source(str(path)))
    index.write_bytes(sound[:20])
    with pytest.raises(DataError, match="is damaged"):
        open_source(str(path))
    index.write_bytes(sound)
    with path.open("ab") as file:
        file.write(b"\0" * 512)
    with pytest.raises(DataError, match="was replaced"):
        open_source(str(path))


def test_manifest_is_compared(make_shards: Callable[..., Path]) -> None:
    folder = make_shards([4, 3])
    paths = sorted(folder.glob("*.tar"))
    entries = [
        ShardEntry(path.name, path.stat().st_size, n, sha256_of(path))
        for path, n in zip(paths, (4, 3), strict=True)
    ]
    Manifest(extensions=["png"], classes=["a", "b", "c"], shards=entries).write(folder)
    assert open_source(str(folder)).classes == ["a", "b", "c"]
    wrong = [entries[0], replace(entries[1], samples=5)]
    Manifest(extensions=["png"], shards=wrong).write(folder)
    with pytest.raises(DataError, match=r"part-001\.tar has 3 samples, index\.json says 5"):
        open_source(str(folder))
    wrong = [entries[0], replace(entries[1], bytes=5)]
    Manifest(extensions=["png"], shards=wrong).write(folder)
    with pytest.raises(DataError, match=r"bytes, index\.json says 5"):
        open_source(str(folder))
    Manifest(extensions=["png"], shards=entries[:1]).write(folder)
    with pytest.raises(DataError, match=r"part-001\.tar is not listed in index\.json"):
        open_source(str(folder))
    Manifest(extensions=["png"], shards=entries).write(folder)
    paths[1].unlink()
    with pytest.raises(DataError, match=r"1 shards that index\.json lists are missing"):
        open_source(str(folder))


@pytest.mark.parametrize(
    "document",
    ["{", '{"version": 2}', '{"version": 1, "extensions": [], "shards": [{"name": "../a"}]}'],
)
def test_foreign_index_json_is_refused(document: str, make_shards: Callable[..., Path]) -> None:
    folder = make_shards([2])
    (folder / "index.json").write_text(document)
    with pytest.raises(DataError, match=r"index\.json is no shard index"):
        open_source(str(folder))


def test_keys_with_unusual_characters(
    write_tar: Callable[..., Path], tmp_path: Path, picture
) -> None:
    name = "日本/" + "long" * 20
    path = write_tar(tmp_path / "x.tar", {f"{name}.png": picture(0)})
    assert list(contents(open_source(str(path)))) == [name]
    assert json.dumps(scan(path).keys)
