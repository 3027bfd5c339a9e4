"""Packing: repeatable, readable by others, nothing lost; verify finds what was changed."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import pytest
import webdataset as wds
from PIL import Image

from mimsuite.data import open_source, source_splits
from mimsuite.data.packing.indexing import index_shards
from mimsuite.data.packing.inspection import contact_sheet, inspect
from mimsuite.data.packing.pack import PackOptions, pack
from mimsuite.data.packing.verify import verify
from mimsuite.data.synthetic.synth import synthesise
from mimsuite.errors import DataError, UserError


def contents(spec: str, split: str = "train") -> dict[bytes, int | None]:
    source = open_source(spec, split, channels="native")
    samples = [source.read(*source.locate(i)) for i in range(len(source))]
    return {bytes(sample.payload): sample.label for sample in samples}


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_pack_keeps_every_sample_and_its_bytes(
    make_folder: Callable[..., Path], tmp_path: Path
) -> None:
    folder, out = make_folder(23, classes=3), tmp_path / "out"
    calls: list[tuple[int, int]] = []
    packed = pack(
        str(folder),
        out,
        PackOptions(shard_size=10),
        lambda done, total: calls.append((done, total)),
    )
    assert [(e.name, e.samples) for e in packed.shards] == [
        ("train-000000.tar", 10),
        ("train-000001.tar", 10),
        ("train-000002.tar", 3),
    ]
    assert calls == [(done, 23) for done in range(24)]
    assert contents(str(out)) == contents(str(folder))
    source = open_source(str(out))
    assert source.classes == ["class0", "class1", "class2"]
    assert source.read(0, 0).key.startswith("class")
    assert all(report.problems == [] for report in verify(str(out)))


def test_pack_twice_gives_the_same_bytes(make_folder: Callable[..., Path], tmp_path: Path) -> None:
    folder = str(make_folder(12, classes=2))
    for name, seed in (("a", 0), ("b", 0), ("c", 1), ("d", None)):
        options = PackOptions(shard_size=5, resize=8, quality=80, seed=seed)
        pack(folder, tmp_path / name, options)
    assert files(tmp_path / "a") == files(tmp_path / "b")
    assert files(tmp_path / "a") != files(tmp_path / "c")
    in_order = open_source(str(tmp_path / "d"))
    assert in_order.labels().tolist() == [0] * 6 + [1] * 6


def test_plain_webdataset_reads_ours(
    make_folder: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wds.utils, "enforce_security", False)  # it refuses local files otherwise
    pack(str(make_folder(9, classes=3)), tmp_path / "out", PackOptions(shard_size=5))
    shards = [str(path) for path in sorted((tmp_path / "out").glob("*.tar"))]
    samples = list(wds.WebDataset(shards, shardshuffle=False))
    assert {sample["png"]: int(sample["cls"]) for sample in samples} == contents(
        str(tmp_path / "out")
    )


def test_resize_shrinks_only_and_quality_makes_jpeg(
    make_folder: Callable[..., Path], tmp_path: Path
) -> None:
    folder = make_folder(4)
    Image.new("RGBA", (50, 40), (255, 0, 0, 0)).save(folder / "clear.png")
    Image.new("RGB", (6, 7)).save(folder / "small.jpg")
    pack(str(folder), tmp_path / "png", PackOptions(resize=10))
    pack(str(folder), tmp_path / "jpg", PackOptions(resize=10, quality=90))
    kinds = {}
    for name in ("png", "jpg"):
        for data in contents(str(tmp_path / name)):
            image = Image.open(io.BytesIO(data))
            kinds.setdefault(name, set()).add((image.format, image.mode, image.size))
    assert kinds["png"] == {
        ("PNG", "RGB", (12, 10)),
        ("PNG", "RGBA", (12, 10)),
        ("JPEG", "RGB", (6, 7)),
    }
    assert kinds["jpg"] == {("JPEG", "RGB", (12, 10)), ("JPEG", "RGB", (6, 7))}


def test_16_bits_survive_a_resize(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    values = Image.new("I;16", (40, 40), 30000)
    values.save(tmp_path / "deep" / "a.png")
    pack(str(tmp_path / "deep"), tmp_path / "out", PackOptions(resize=20))
    source = open_source(str(tmp_path / "out"), channels="gray16")
    image = source.decode(source.read(0, 0))
    assert image.shape == (1, 20, 20)
    assert (image * 65535).round().unique().tolist() == [30000]


def test_splits_are_packed_apart(tmp_path: Path) -> None:
    assert synthesise("image", tmp_path / "made", count=30, size=16) == {"train": 24, "test": 6}
    with pytest.raises(UserError, match="is there already and not empty"):
        synthesise("image", tmp_path / "made", count=30, size=16)
    pack(str(tmp_path / "made"), tmp_path / "out")
    assert source_splits(str(tmp_path / "out")) == ["test", "train"]
    for split in ("test", "train"):
        assert contents(str(tmp_path / "out"), split) == contents(str(tmp_path / "made"), split)
    with pytest.raises(UserError, match="holds shards already"):
        pack(str(tmp_path / "made"), tmp_path / "out")
    pack(str(tmp_path / "out"), tmp_path / "again", PackOptions(split="test"))
    assert source_splits(str(tmp_path / "again")) == ["test"]


def test_corrupt_samples_are_left_out_and_named(
    make_folder: Callable[..., Path], tmp_path: Path
) -> None:
    folder = make_folder(8)
    (folder / "003.png").write_bytes(b"no image")
    packed = pack(str(folder), tmp_path / "out", PackOptions(shard_size=4))
    assert [item.key for item in packed.damaged] == ["003.png"]
    assert sum(entry.samples for entry in packed.shards) == 7
    for path in folder.iterdir():
        path.write_bytes(b"no image")
    with pytest.raises(DataError, match="of 8 samples are corrupt"):
        pack(str(folder), tmp_path / "none")


def test_odd_names_become_keys_that_others_read(tmp_path: Path, picture) -> None:
    folder = tmp_path / "odd"
    names = ["a.b.png", "a_b.png", "a_b.jpg", "日本.png", "x" * 120 + ".png", "back\nline.png"]
    for number, name in enumerate(names):
        (folder / "class.one").mkdir(parents=True, exist_ok=True)
        (folder / "class.one" / name).write_bytes(picture(number))
    pack(str(folder), tmp_path / "out")
    assert contents(str(tmp_path / "out")) == contents(str(folder))
    source = open_source(str(tmp_path / "out"))
    assert len({source.key(0, i) for i in range(6)}) == 6


# --- verify, index, inspect ---


def test_verify_finds_every_change(make_folder: Callable[..., Path], tmp_path: Path) -> None:
    out = tmp_path / "out"
    pack(str(make_folder(6)), out, PackOptions(shard_size=3))
    first, second = sorted(out.glob("*.tar"))
    data = bytearray(first.read_bytes())
    data[600] ^= 1
    first.write_bytes(data)
    second.write_bytes(second.read_bytes()[:-2000])
    reports = {report.name: report for report in verify(str(out))}
    assert "SHA-256" in reports[first.name].problems[0]
    assert ": crc: " in reports[first.name].problems[1]
    assert len(reports[first.name].problems) == 2
    assert len(reports[second.name].problems) == 1


def test_verify_decodes_files_of_any_source(make_folder: Callable[..., Path]) -> None:
    folder = make_folder(5)
    assert verify(str(folder))[0].problems == []
    (folder / "002.png").write_bytes(b"no image")
    (report,) = verify(str(folder))
    assert report.samples == 5
    assert len(report.problems) == 1
    assert report.problems[0].startswith("002.png: decode")


def test_index_makes_foreign_shards_a_set(make_shards: Callable[..., Path]) -> None:
    folder = make_shards([4, 2])
    facts = index_shards(str(folder))
    assert [item["samples"] for item in facts["shards"]] == [4, 2]
    assert (folder / "index.json").is_file()
    assert len(open_source(str(folder))) == 6
    assert index_shards(str(folder))["shards"] == facts["shards"]
    assert all(report.problems == [] for report in verify(str(folder)))


def test_inspect_counts(make_folder: Callable[..., Path], tmp_path: Path) -> None:
    folder = make_folder(7, classes=2)
    (folder / "class0" / "000.png").write_bytes(b"no image")
    figures = inspect(str(folder))["splits"]["train"]
    assert figures["samples"] == figures["labelled"] == 7
    assert figures["classes"] == {"class0": 4, "class1": 3}
    assert figures["height"] == {"min": 16, "median": 16, "max": 16}
    assert figures["channels"] == {"3 x uint8": 6}
    assert len(figures["corrupt"]) == 1
    sheet = contact_sheet(open_source(str(folder)), tmp_path / "new" / "sheet.png")
    assert Image.open(sheet).size == (768, 110)
