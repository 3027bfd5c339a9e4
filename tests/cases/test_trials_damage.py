"""One bad part never condemns a set: shards without samples, damaged tables, lists elsewhere."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mimsuite import config
from mimsuite.cli.main import main
from mimsuite.data import open_source, open_training_set
from mimsuite.data.packing.inspection import inspect
from mimsuite.data.packing.pack import pack
from mimsuite.data.packing.verify import verify
from mimsuite.errors import DataError, UserError
from tests.needs import module


def picture(number: int = 0) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (8, 8), (number, 0, 0)).save(stream, "PNG")
    return stream.getvalue()


def shard(path: Path, members: dict[str, bytes]) -> None:
    with tarfile.open(path, "w") as file:
        for name, data in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            file.addfile(member, io.BytesIO(data))


EMPTY = [
    {"000000003.json": b"{}", "000000003.txt": b"no download"},  # every download failed
    {},  # no member at all
    {"a.bin": b"x", "b.bin": b"x"},
]


@pytest.mark.parametrize("members", EMPTY)
def test_a_shard_without_samples_is_left_out_and_counted(
    members: dict[str, bytes], tmp_path: Path
) -> None:
    shard(tmp_path / "00000.tar", {f"{n}.png": picture(n) for n in range(3)})
    shard(tmp_path / "00001.tar", members)
    shard(tmp_path / "00002.tar", {f"{n + 3}.png": picture(n) for n in range(2)})
    source = open_source(str(tmp_path))
    assert len(source) == 5
    assert "shards without any sample (1): 00001.tar" in source.unused.lines()
    assert [source.read(*source.locate(n)).key for n in range(5)] == ["0", "1", "2", "3", "4"]
    assert inspect(str(tmp_path))["splits"]["train"]["samples"] == 5
    assert pack(str(tmp_path), tmp_path / "out").shards[0].samples == 5
    assert any("no samples" in p for report in verify(str(tmp_path)) for p in report.problems)


def test_a_set_of_nothing_but_such_shards_is_refused(tmp_path: Path) -> None:
    for name in ("a.tar", "b.tar"):
        shard(tmp_path / name, EMPTY[0])
    with pytest.raises(DataError, match=r"a\.tar: no samples with an image"):
        open_source(str(tmp_path))


def test_files_beside_the_one_that_is_read_are_those_of_their_own_shard(tmp_path: Path) -> None:
    shard(tmp_path / "a.tar", {f"{n}.jpeg": picture() for n in range(3)})
    pairs = {f"s{n}.{side}.png": picture() for n in range(2) for side in ("left", "right")}
    shard(tmp_path / "b.tar", pairs)
    assert open_source(str(tmp_path)).unused.lines() == [
        "files of a sample beside the one that is read (2): *.right.png ..."
    ]


def tables(folder: Path, damage: int | None, data: bytes = b"") -> None:
    arrow, parquet = module("pyarrow"), module("pyarrow.parquet")
    for part in range(3):
        path = folder / f"train-{part:05d}-of-00003.parquet"
        rows = [{"bytes": picture(n), "path": ""} for n in range(4)]
        parquet.write_table(arrow.table({"image": rows, "label": [0, 1, 0, 1]}), path)
        if part == damage:
            content = path.read_bytes()
            path.write_bytes(data or content[: len(content) // 2])


@pytest.mark.parametrize("damage", [0, 1, 2])
def test_a_cut_table_is_one_damaged_sample(damage: int, tmp_path: Path) -> None:
    tables(tmp_path, damage)
    source = open_source(str(tmp_path))
    assert (len(source), (source.labels() >= 0).sum()) == (9, 8)
    split = inspect(str(tmp_path))["splits"]["train"]
    assert len(split["corrupt"]) == 1
    assert f"train-{damage:05d}-of-00003.parquet" in split["corrupt"][0]
    (report,) = verify(str(tmp_path))
    assert len(report.problems) == 1
    assert sum(entry.samples for entry in pack(str(tmp_path), tmp_path / "out").shards) == 8


def test_damage_inside_of_a_table_is_of_its_rows(tmp_path: Path) -> None:
    arrow, parquet = module("pyarrow"), module("pyarrow.parquet")
    rng = np.random.default_rng(0)
    rows = [{"bytes": rng.bytes(4000), "path": ""} for _ in range(6)]
    table = arrow.table({"image": rows, "label": [0, 1, 2, 0, 1, 2]})
    path = tmp_path / "a.parquet"
    options = {"row_group_size": 3, "compression": "snappy", "use_dictionary": False}
    parquet.write_table(table, path, **options)
    meta = parquet.ParquetFile(path).metadata.row_group(0)
    content = bytearray(path.read_bytes())
    for column in range(meta.num_columns):  # the pages of the first group
        at = meta.column(column).data_page_offset
        content[at : at + 12] = b"\xff" * 12
    path.write_bytes(content)
    source = open_source(str(tmp_path))
    assert source.labels().tolist() == [-1, -1, -1, 0, 1, 2]
    (report,) = verify(str(tmp_path))
    assert len(report.problems) == 6  # three of them hold no picture


def test_tables_that_are_all_damaged_are_refused(tmp_path: Path) -> None:
    tables(tmp_path, 0, b"PAR1")
    for part in (1, 2):
        (tmp_path / f"train-{part:05d}-of-00003.parquet").write_bytes(b"")
    with pytest.raises(DataError, match="cannot read"):
        open_source(str(tmp_path))


# --- data.root ---


def recipe_of(source: Path, **changes: object) -> config.Resolved:
    keys = {"data.source": str(source), "data.channels": "rgb", **changes}
    return config.with_overrides(config.load("image/mae-tiny-fashion"), keys, "test")


@pytest.fixture
def lists(tmp_path: Path) -> Path:
    pictures = tmp_path / "disk" / "pictures"
    pictures.mkdir(parents=True)
    for number in range(3):
        (pictures / f"{number}.png").write_bytes(picture(number))
    folder = tmp_path / "far" / "away" / "and" / "deep"
    folder.mkdir(parents=True)
    (folder / "blanks.txt").write_text("0.png 0\n1.png 1\n2.png 1\n")
    (folder / "header.csv").write_text("path,label\n0.png,0\n1.png,1\n2.png,1\n")
    (folder / "ids.tsv").write_text("0\tcat\n1\tdog\n2\tdog\n")
    return folder


@pytest.mark.parametrize("name", ["blanks.txt", "header.csv", "ids.tsv"])
def test_listed_paths_are_relative_to_the_root(name: str, lists: Path, tmp_path: Path) -> None:
    root = str(tmp_path / "disk" / "pictures")
    source = open_training_set(recipe_of(lists / name, **{"data.root": root}).recipe)
    assert source.labels().tolist() == [0, 1, 1]
    assert source.read(2, 0).payload == picture(2)


def test_a_root_that_does_not_fit_is_named(lists: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"data\.root=FOLDER names the folder"):
        open_training_set(recipe_of(lists / "blanks.txt").recipe)
    with pytest.raises(DataError, match=r"elsewhere/0\.png"):
        open_training_set(recipe_of(lists / "blanks.txt", **{"data.root": "elsewhere"}).recipe)
    with pytest.raises(UserError, match="is no list of files"):
        open_training_set(recipe_of(tmp_path / "disk", **{"data.root": "x"}).recipe)


def test_a_root_of_each_set_of_a_mixture(lists: Path, tmp_path: Path) -> None:
    one = {"source": str(lists / "blanks.txt"), "root": str(tmp_path / "disk" / "pictures")}
    mixed = recipe_of(Path(), **{"data.source": "", "data.mixture": [one]})
    assert len(open_training_set(mixed.recipe)) == 3


def test_pack_says_what_is_not_used_once(
    lists: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pictures = tmp_path / "disk" / "pictures"
    (pictures / "notes.psd").write_bytes(b"x")
    frames = [Image.new("RGB", (8, 8), (n, 0, 0)) for n in range(2)]
    frames[0].save(pictures / "moving.gif", save_all=True, append_images=frames[1:])
    assert main(["data", "pack", str(pictures), str(tmp_path / "out"), "--json"]) == 0
    said = capsys.readouterr()
    assert said.err.count(".psd files") == said.err.count("frames after the first") == 1
    whats = [item["what"] for item in json.loads(said.out)["unused"]]
    assert whats == [".psd files", "frames after the first"]
