"""Lists and shards as other tools leave them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from mimsuite.cli.main import main
from mimsuite.data import Source, open_source, source_splits
from mimsuite.errors import DataError, UserError

CASES = Path(__file__).parent


def keys(source: Source) -> list[str]:
    return [source.key(*source.locate(position)) for position in range(len(source))]


def draw(path: Path, value: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (16, 16), value).save(path)
    return path


@pytest.fixture
def files(tmp_path: Path) -> Callable[..., Path]:
    """``files("list.csv", "text", "a.png", "b.png")``: a list beside pictures; its path."""

    def write(name: str, text: str, *pictures: str) -> Path:
        for number, picture in enumerate(pictures):
            draw(tmp_path / picture, number)
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
        return tmp_path / name

    return write


# --- labels ---


def test_minus_one_is_no_label_and_numbers_are_sorted_as_numbers() -> None:
    source = open_source(str(CASES / "list-minus-one/labels.csv"))
    assert source.labels().tolist() == [i // 2 if i % 2 else -1 for i in range(24)]
    assert source.classes == [str(i) for i in range(12)]


@pytest.mark.parametrize(
    ("none", "labels", "classes"),
    [
        ("", ["cat", "ant"], [-1, 1, -1, 0]),
        ("None", ["10", "2"], [-1, 10, -1, 2]),
        ("nan", ["3.0", "0.0"], [-1, 3, -1, 0]),  # a table with gaps, as pandas writes it
        ("-1", ["zebra", "7a"], [-1, 1, -1, 0]),
    ],
)
def test_other_words_for_no_label(
    files: Callable[..., Path], none: str, labels: list[str], classes: list[int]
) -> None:
    text = f"path,label\na.png,{none}\nb.png,{labels[0]}\nc.png,{none}\nd.png,{labels[1]}\n"
    source = open_source(str(files("l.csv", text, "a.png", "b.png", "c.png", "d.png")))
    assert source.labels().tolist() == classes
    assert source.no_classes is None


@pytest.mark.parametrize(
    ("labels", "what"),
    [
        (("0.5", "1.25"), "numbers with a fraction"),
        (("-3", "4"), "numbers with a fraction or a sign"),
        (("cat;dog", "cat"), "several classes"),
        (("cat|dog", "ant"), "several classes"),
        (('"cat, dog"', "cat", "dog"), "several classes"),
    ],
)
def test_labels_that_are_no_classes_are_kept_as_text_and_counted(
    files: Callable[..., Path], labels: tuple[str, ...], what: str
) -> None:
    names = [f"{number}.png" for number in range(len(labels) + 1)]
    rows = [f"{name},{label}" for name, label in zip(names, (*labels, "-1"), strict=True)]
    source = open_source(str(files("l.csv", "\n".join(["path,label", *rows]), *names)))
    assert (source.labelled, source.classes) == (False, None)
    assert source.label_texts() == [*(label.strip('"') for label in labels), "-1"]
    (line,) = source.unused.lines()
    assert what in line
    assert f"({len(labels)})" in line


def test_a_comma_in_the_name_of_a_class_is_no_second_label(files: Callable[..., Path]) -> None:
    text = 'path,label\na.png,"tench, Tinca tinca"\nb.png,"ox, Bos taurus"\n'
    source = open_source(str(files("l.csv", text, "a.png", "b.png")))
    assert source.classes == ["ox, Bos taurus", "tench, Tinca tinca"]


# --- forms of lists ---


def test_lists_published_for_video() -> None:
    train = open_source(str(CASES / "list-videomae/train.csv"), modality="video")
    assert (keys(train), train.labels().tolist()) == (["v1.mp4", "v2.mp4"], [0, 1])
    pretrain = open_source(str(CASES / "list-videomae/pretrain.txt"), modality="video")
    assert keys(pretrain) == ["v1.mp4", "v2.mp4"]
    assert (pretrain.labelled, pretrain.classes) == (False, None)


@pytest.mark.parametrize(
    ("name", "text", "paths", "labels"),
    [
        ("l.csv", "a b.png 1\nc.png 0\n", ["a b.png", "c.png"], [1, 0]),
        ("l.txt", "a b.png\nc.png\n", ["a b.png", "c.png"], [-1, -1]),
        ("l.csv", "a b.png;1\nc.png;0\n", ["a b.png", "c.png"], [1, 0]),
        ("l.txt", "a b.png,1\nc.png,0\n", ["a b.png", "c.png"], [1, 0]),
        ("l.csv", "a b.png\t1\nc.png\t0\n", ["a b.png", "c.png"], [1, 0]),
        ("l.txt", "a b.png 0 -1 1\nc.png 0 -1 0\n", ["a b.png", "c.png"], [1, 0]),
        ("l.csv", "c.png,0,-1\na b.png,0,-1\n", ["c.png", "a b.png"], [-1, -1]),
        ("l.txt", "path label\na b.png 1\nc.png 0\n", ["a b.png", "c.png"], [1, 0]),
        ("l.csv", "file_name,target\na b.png,1\nc.png,0\n", ["a b.png", "c.png"], [1, 0]),
        ("l.csv", ",image_path,class\n0,a b.png,1\n1,c.png,0\n", ["a b.png", "c.png"], [1, 0]),
        ("l.csv", "id;label\nc;1\na b;0\n", ["c.png", "a b.png"], [1, 0]),
        ("lists/l.txt", "a b.png 1\nc.png 0\n", ["a b.png", "c.png"], [1, 0]),
    ],
)
def test_separators_headers_and_places(
    files: Callable[..., Path], name: str, text: str, paths: list[str], labels: list[int]
) -> None:
    source = open_source(str(files(name, text, "a b.png", "c.png")))
    assert (keys(source), source.labels().tolist()) == (paths, labels)
    assert source.decode(source.read(1, 0)).shape == (3, 16, 16)


def test_columns_that_are_not_used_are_counted(files: Callable[..., Path]) -> None:
    text = "filename,label,caption,split\na.png,1,hello,train\nb.png,0,,val\n"
    path = files("l.csv", text, "a.png", "b.png")
    assert source_splits(str(path)) == ["train", "val"]
    assert open_source(str(path)).unused.lines() == ["cells of column caption of the list (1)"]
    path = files("n.csv", "file,land_cover\na.png,crop\nb.png,urban\n", "a.png", "b.png")
    assert open_source(str(path)).unused.lines() == [
        "cells of column land_cover of the list; classes are in a column `label` (2)"
    ]
    path = files("m.csv", "a.png,1,x\nb.png,0,y\n", "a.png", "b.png")
    assert open_source(str(path)).unused.lines() == ["cells of column 3 of the list (2)"]


@pytest.mark.parametrize(
    "text", ["a.png 10 50\n", "a.png 0 5 3\n", "path,label,start,length\na.png,1,4,-1\n"]
)
def test_a_part_of_a_video_is_refused_in_one_line(files: Callable[..., Path], text: str) -> None:
    with pytest.raises(UserError, match=r"row 1 asks for a part of a\.png"):
        open_source(str(files("l.txt", text, "a.png")))


def test_folders_of_frames_in_lists(files: Callable[..., Path]) -> None:
    pictures = [f"{clip}/{frame}.png" for clip in ("up", "down") for frame in range(4)]
    for text, labels in (
        ("up 1\ndown 0\n", [1, 0]),
        ("up 0 4\ndown 0 4\n", [-1, -1]),
        ("up 4 1\ndown 4 0\n", [1, 0]),
    ):
        path = str(files("l.txt", text, *pictures))
        source = open_source(path, modality="video")
        assert (keys(source), source.labels().tolist()) == (["up", "down"], labels)
        with pytest.raises(UserError, match="up is a folder"):
            open_source(path)
    with pytest.raises(UserError, match="asks for a part of up"):
        open_source(str(files("l.txt", "up 0 2\n")), modality="video")


def test_what_is_missing_is_said_with_the_separator(files: Callable[..., Path]) -> None:
    with pytest.raises(DataError, match=r"first is .*gone\.png \(columns .* by commas\)"):
        open_source(str(files("l.csv", "a.png,1\ngone.png,2\n", "a.png")))
    with pytest.raises(DataError, match="call the column of files `path`"):
        open_source(str(files("l.csv", "photo,label\na.png,1\nb.png,2\n", "a.png", "b.png")))


def test_lists_that_other_programs_save(files: Callable[..., Path]) -> None:
    path = files("l.csv", "", "a.png", "b.png")
    path.write_text("path;label\r\na.png;1\r\nb.png;0\r\n", encoding="utf-16")
    assert open_source(str(path)).labels().tolist() == [1, 0]


def test_inspect_and_verify_of_a_list(capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("list-videomae/train.csv", "list-minus-one/labels.csv"):
        assert main(["data", "inspect", str(CASES / name), "--json"]) == 0
        assert main(["data", "verify", str(CASES / name)]) == 0
