"""Zip files, single files, and folders that hold the suite's own runs."""

from __future__ import annotations

import io
import json
import pickle
import zipfile
from pathlib import Path

import pytest
from PIL import Image

from mimsuite.cli.main import main
from mimsuite.data import CorruptSample, Source, open_source, source_splits
from mimsuite.errors import DataError, UserError


def keys(source: Source) -> list[str]:
    return [source.key(*source.locate(position)) for position in range(len(source))]


def png(value: int = 0) -> bytes:
    stream = io.BytesIO()
    Image.new("L", (32, 32), value).save(stream, "PNG")
    return stream.getvalue()


def pack(path: Path, *names: str) -> str:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for number, name in enumerate(names):
            archive.writestr(name, png(number))
    return str(path)


@pytest.mark.parametrize(
    ("names", "found", "classes"),
    [
        (["a.png", "b.png"], ["a.png", "b.png"], None),
        (["cat/a.png", "ant/b.png"], ["ant/b.png", "cat/a.png"], ["ant", "cat"]),
        (["all/cat/a.png", "all/ant/b.png"], ["ant/b.png", "cat/a.png"], ["ant", "cat"]),
        (["a.png", "__MACOSX/._a.png", ".x/b.png"], ["a.png"], None),
    ],
)
def test_a_zip_file_is_read_as_a_folder(
    tmp_path: Path, names: list[str], found: list[str], classes: list[str] | None
) -> None:
    source = open_source(pack(tmp_path / "photos.zip", *names))
    assert (keys(source), source.classes) == (found, classes)
    again = pickle.loads(pickle.dumps(source))
    assert again.decode(again.read(0, 0)).shape == (3, 32, 32)


def test_splits_and_other_files_in_a_zip(tmp_path: Path) -> None:
    spec = pack(tmp_path / "x.zip", "d/train/a/1.png", "d/train/b/2.png", "d/val/b/3.png")
    with zipfile.ZipFile(spec, "a") as archive:
        archive.writestr("d/val/notes.psd", b"x")
    assert source_splits(spec) == ["train", "val"]
    val = open_source(spec, "val")
    assert (keys(val), val.labels().tolist(), val.classes) == (["b/3.png"], [1], ["a", "b"])
    assert val.unused.lines() == [".psd files (1): val/notes.psd"]


def test_one_bad_member_of_a_zip_is_one_corrupt_sample(tmp_path: Path) -> None:
    spec = pack(tmp_path / "x.zip", "a.png", "b.png", "c.png")
    data = bytearray(Path(spec).read_bytes())
    data[data.index(b"b.png") + 10] ^= 255
    Path(spec).write_bytes(data)
    source = open_source(spec)
    with pytest.raises(CorruptSample):
        source.read(1, 0)
    assert source.decode(source.read(2, 0)).shape == (3, 32, 32)


def test_a_member_larger_than_the_limit_is_not_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = str(tmp_path / "x.zip")
    with zipfile.ZipFile(spec, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.png", bytes(5000))
    monkeypatch.setattr("mimsuite.data.zipped.MAX_SAMPLE_BYTES", 4999)
    with pytest.raises(CorruptSample, match="more than 4999 bytes"):
        open_source(spec).read(0, 0)


def test_what_is_no_zip_or_holds_nothing(tmp_path: Path) -> None:
    (tmp_path / "x.zip").write_bytes(b"x")
    with pytest.raises(DataError, match="is no zip file"):
        open_source(str(tmp_path / "x.zip"))
    with pytest.raises(DataError, match="no files in it that are read"):
        open_source(pack(tmp_path / "y.zip", "a.psd"))


def test_commands_on_a_zip_and_on_one_file(tmp_path: Path) -> None:
    spec = pack(tmp_path / "photos.zip", *(f"{n % 2}/{n}.png" for n in range(6)))
    (tmp_path / "one.png").write_bytes(png())
    for source, out in ((spec, "a"), (str(tmp_path / "one.png"), "b")):
        assert main(["data", "inspect", source]) == 0
        assert main(["data", "verify", source]) == 0
        assert main(["data", "pack", source, str(tmp_path / out)]) == 0
    assert open_source(str(tmp_path / "a")).classes == ["0", "1"]


def test_one_file_is_one_sample(tmp_path: Path) -> None:
    (tmp_path / "one.PNG").write_bytes(png())
    source = open_source(str(tmp_path / "one.PNG"))
    assert keys(source) == ["one.PNG"]
    (tmp_path / "one.doc").write_bytes(b"x")
    with pytest.raises(UserError, match="or one file of"):
        open_source(str(tmp_path / "one.doc"))


def test_the_suite_s_own_runs_are_no_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(8):
        folder = tmp_path / ("up" if number % 2 else "down")
        folder.mkdir(exist_ok=True)
        (folder / f"{number}.png").write_bytes(png(number))
    monkeypatch.chdir(tmp_path)
    words = ["pretrain", "image/mae-tiny-fashion", "--smoke", "--data", ".", "--out", "runs/a"]
    assert main([*words, "train.global_batch=4", "data.lanes=1"]) == 0
    assert list((tmp_path / "runs").rglob("*.png"))
    capsys.readouterr()
    assert main(["data", "inspect", ".", "--json"]) == 0
    (split,) = json.loads(capsys.readouterr().out)["splits"].values()
    assert (split["samples"], split["classes"]) == (8, {"down": 4, "up": 4})
    assert split["unused"][-1]["what"] == "run directories of this suite"
    assert split["unused"][-1]["first"] == ["runs/a/"]


@pytest.mark.parametrize("mark", ["metrics.jsonl", "events.jsonl", "checkpoints/x.png"])
def test_what_a_run_directory_is(tmp_path: Path, mark: str) -> None:
    for name in ("up/1.png", "out/config.yaml", "out/images/2.png", f"out/{mark}", "b/3.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).write_bytes(png())
    source = open_source(str(tmp_path))
    assert (keys(source), source.classes) == (["b/3.png", "up/1.png"], ["b", "up"])
    assert source.unused.lines() == ["run directories of this suite (1): out/"]
    assert len(open_source(str(tmp_path / "out/images"))) == 1
