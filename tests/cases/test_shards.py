"""Tar shards as other tools leave them."""

from __future__ import annotations

import bz2
import io
import json
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from mimsuite.cli.main import main
from mimsuite.data import Source, open_source
from mimsuite.data.shards.scan import scan
from mimsuite.errors import DataError

CASES = Path(__file__).parent
Members = dict[str, bytes]


def keys(source: Source) -> list[str]:
    return [source.key(*source.locate(position)) for position in range(len(source))]


def png(value: int = 0) -> bytes:
    stream = io.BytesIO()
    Image.new("L", (16, 16), value).save(stream, "PNG")
    return stream.getvalue()


@pytest.fixture
def case(tmp_path: Path) -> Callable[[str], str]:
    """A copy of a case: indexes are written beside shards."""
    return lambda name: str(shutil.copytree(CASES / name, tmp_path / name))


@pytest.fixture
def shard(tmp_path: Path) -> Callable[..., str]:
    """``shard({"a.png": bytes}, "x.tar")``: a folder of one shard, or one more in it."""

    def write(members: Members, name: str = "a.tar") -> str:
        folder = tmp_path / "shards"
        folder.mkdir(exist_ok=True)
        with tarfile.open(folder / name, "w") as archive:
            for member, data in members.items():
                info = tarfile.TarInfo(member)
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
        return str(folder)

    return write


# --- keys without an image ---


def test_a_key_without_an_image_is_left_out_and_named(
    case: Callable[[str], str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = case("shard-sample-without-image")
    for _ in range(2):  # the second time from the index that the first wrote
        source = open_source(spec)
        assert len(source) == 9
        assert "samples without an image (1): 000000003" in source.unused.lines()
    assert main(["data", "verify", spec]) == 0
    assert main(["data", "pack", spec, str(tmp_path / "out")]) == 0
    assert "samples without an image (1): 000000003" in capsys.readouterr().err
    assert len(open_source(str(tmp_path / "out"))) == 9


def test_pretraining_names_a_key_without_an_image(
    case: Callable[[str], str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = case("shard-sample-without-image")
    words = ["pretrain", "image/mae-tiny-fashion", "--smoke", "--data", spec, "--out"]
    assert main([*words, str(tmp_path / "run"), "train.global_batch=4", "data.lanes=1"]) == 0
    assert "samples without an image (1): 000000003" in capsys.readouterr().err


@pytest.mark.parametrize(
    "rest", [{"b.cls": b"1"}, {"b.txt": b"a cat"}, {"b.json": b'{"status": "failed"}'}]
)
def test_other_members_without_their_image(shard: Callable[..., str], rest: Members) -> None:
    others = {f"a.{name.partition('.')[2]}": data for name, data in rest.items()}
    source = open_source(shard({"a.png": png(), **others, **rest}))
    assert keys(source) == ["a"]
    assert "samples without an image (1): b" in source.unused.lines()


# --- names with dots ---


def test_names_with_dots_are_samples_of_their_own(case: Callable[[str], str]) -> None:
    spec = case("shard-dotted-names")  # with the index that an earlier version wrote
    expected = [f"2023.05.{day:02d}.jpg" for day in range(1, 11)]
    assert sorted(keys(open_source(spec))) == expected
    (Path(spec) / "a.tar.idx").unlink()
    source = open_source(spec)
    assert sorted(keys(source)) == expected
    assert source.decode(source.read(0, 9)).shape == (3, 32, 32)
    assert main(["data", "verify", spec]) == 0


@pytest.mark.parametrize(
    ("names", "samples"),
    [
        (["v1.scan.1.png", "v1.scan.2.png", "v2.scan.1.png"], 3),
        (["IMG.20230501.png", "IMG.20230502.png", "trip.20230501.png"], 3),
        (["oslo.sea.png", "oslo.hill.png", "rome.arch.png", "rome.gate.png"], 4),
        (["a.png", "a.2.png", "b.png"], 3),
        # Samples of several files, by WebDataset's rule.
        (["x.depth.png", "x.rgb.png"], 1),
        (["x.depth.png", "x.rgb.png", "y.depth.png", "y.rgb.png"], 2),
        (["x.0.png", "x.1.png", "y.0.png", "y.1.png"], 2),
    ],
)
def test_which_names_with_dots_are_one_sample(
    shard: Callable[..., str], names: list[str], samples: int
) -> None:
    source = open_source(shard({name: png(number) for number, name in enumerate(names)}))
    assert len(source) == samples
    pixels = {int(source.decode(source.read(0, i))[0, 0, 0]) for i in range(samples)}
    assert len(pixels) == samples
    more = [line for line in source.unused.lines() if "beside the one that is read" in line]
    assert bool(more) == (samples < len(names))


def test_a_label_keeps_numbered_pictures_together(shard: Callable[..., str]) -> None:
    members = {"x.1.png": png(), "x.2.png": png(), "x.cls": b"1", "y.3.png": png(), "y.cls": b"0"}
    source = open_source(shard(members))
    assert (keys(source), source.labels().tolist()) == (["x", "y"], [1, 0])
    assert "files of a sample beside the one that is read (1)" in source.unused.lines()[0]


# --- compressed, links ---


def test_a_compressed_shard_is_called_compressed(case: Callable[[str], str]) -> None:
    with pytest.raises(DataError, match=r"compressed \(gzip\).*unpack it"):
        open_source(case("shard-gzip-inside"))


@pytest.mark.parametrize("name", ["a.tar.gz", "a.tgz", "a.tar.bz2"])
def test_compressed_by_name(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"x")
    with pytest.raises(DataError, match="is compressed: unpack it"):
        open_source(str(tmp_path / name))


def test_other_compressions_inside(shard: Callable[..., str], tmp_path: Path) -> None:
    path = Path(shard({"a.png": png()})) / "a.tar"
    path.write_bytes(bz2.compress(path.read_bytes()))
    with pytest.raises(DataError, match=r"compressed \(bzip2\)"):
        open_source(str(path))


def test_compressed_members_are_counted(shard: Callable[..., str]) -> None:
    source = open_source(shard({"a.png": png(), "b.png.gz": b"x", "c.jpg.GZ": b"x"}))
    assert keys(source) == ["a"]
    assert source.unused.lines()[0].endswith("(2): b.png.gz, c.jpg.GZ")


def test_links_inside_a_shard_are_read(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w") as archive:
        info = tarfile.TarInfo("x/a.png")
        info.size = len(png(7))
        archive.addfile(info, io.BytesIO(png(7)))
        for name, kind, target in (
            ("x/b.png", tarfile.LNKTYPE, "x/a.png"),
            ("x/c.png", tarfile.SYMTYPE, "a.png"),
            ("x/d.png", tarfile.SYMTYPE, "../../etc/passwd"),
        ):
            link = tarfile.TarInfo(name)
            link.type, link.linkname = kind, target
            archive.addfile(link)
    source = open_source(str(path))
    assert keys(source) == ["x/a", "x/b", "x/c"]
    assert {source.payload(0, number) for number in range(3)} == {png(7)}
    assert source.unused.lines() == ["links to no member before them (1): x/d.png"]


# --- labels ---


@pytest.mark.parametrize("key", ["label", "cls", "class", "target"])
def test_labels_in_json(shard: Callable[..., str], key: str) -> None:
    labels = ["cat", "ant", None]
    members = {}
    for number, label in enumerate(labels):
        members[f"{number}.png"] = png(number)
        members[f"{number}.json"] = json.dumps({key: label, "url": "x"}).encode()
    source = open_source(shard(members))
    assert source.classes == ["ant", "cat"]
    assert source.labels().tolist() == [1, 0, -1]
    assert not source.unused  # the third says that it has no label


def test_numbers_in_json_and_cls_before_json(shard: Callable[..., str]) -> None:
    members = {"a.png": png(), "a.json": b'{"label": 3}', "b.png": png()}
    members |= {"b.cls": b"1", "b.json": b'{"label": 3}'}
    assert open_source(shard(members)).labels().tolist() == [3, 1]


@pytest.mark.parametrize(
    ("labels", "what"),
    [((b"0.5", b"1.5"), "fraction"), ((b"cat;dog", b"cat"), "several classes")],
)
def test_labels_in_shards_that_are_no_classes(
    shard: Callable[..., str], labels: tuple[bytes, ...], what: str
) -> None:
    members = {"a.png": png(), "a.cls": labels[0], "b.png": png(), "b.cls": labels[1]}
    source = open_source(shard(members))
    assert (source.labelled, source.labels().tolist()) == (False, [-1, -1])
    assert what in source.unused.lines()[0]


@pytest.mark.parametrize("none", [b"", b"-1", b"None", b"nan\n"])
def test_no_label_in_shards(shard: Callable[..., str], none: bytes) -> None:
    members = {"a.png": png(), "a.cls": b"cat", "b.png": png(), "b.cls": none}
    source = open_source(shard(members))
    assert (source.classes, source.labels().tolist()) == (["cat"], [0, -1])


@pytest.mark.parametrize("names", [("n01440764", "n01443537"), ("cats", "dogs")])
def test_a_tar_of_each_class(shard: Callable[..., str], names: tuple[str, str]) -> None:
    for number, name in enumerate(names):
        spec = shard({f"{name}_{i}.png": png(number) for i in range(2)}, f"{name}.tar")
    source = open_source(spec)
    assert (source.classes, source.labels().tolist()) == (list(names), [0, 0, 1, 1])
    assert not source.unused


def test_shards_by_number_are_no_classes(shard: Callable[..., str]) -> None:
    for name in ("part-a0.tar", "part-a1.tar"):
        spec = shard({"a.png": png()}, name)
    assert open_source(spec).classes is None


def test_folders_inside_of_shards_are_named(shard: Callable[..., str]) -> None:
    source = open_source(shard({"cats/a.png": png(), "dogs/b.png": png()}))
    (line,) = source.unused.lines()
    assert line.endswith("(2): cats, dogs")


def test_an_index_without_the_counts_is_read(case: Callable[[str], str]) -> None:
    path = Path(case("shard-dotted-names")) / "a.tar"
    assert len(scan(path).keys) == 1
    assert len(open_source(str(path))) == 10
