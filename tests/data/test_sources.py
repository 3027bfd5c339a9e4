"""Folders, lists and embedded sets: splits, classes, and errors that say what to do."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from mimsuite.data import CorruptSample, open_source, source_splits
from mimsuite.data.strings import StringTable
from mimsuite.errors import DataError, UserError


def keys(source) -> list[str]:
    return [source.key(*source.locate(i)) for i in range(len(source))]


def test_flat_folder_has_no_labels(make_folder: Callable[..., Path]) -> None:
    folder = make_folder(5)
    (folder / ".hidden.png").write_bytes(b"x")
    (folder / "notes.txt").write_text("x")
    source = open_source(str(folder))
    assert keys(source) == [f"{i:03d}.png" for i in range(5)]
    assert (source.classes, source.labelled, source.split) == (None, False, "train")
    assert source_splits(str(folder)) == ["train"]
    with pytest.raises(UserError, match="has no split 'test': it is one set without splits"):
        open_source(str(folder), "test")


def test_class_folders_are_labels(make_folder: Callable[..., Path]) -> None:
    source = open_source(str(make_folder(6, classes=3)))
    assert source.classes == ["class0", "class1", "class2"]
    assert source.labels().tolist() == [0, 0, 1, 1, 2, 2]
    sample = source.read(3, 0)
    assert (sample.key, sample.label) == ("class1/004.png", 1)
    assert source.decode(sample).shape == (3, 16, 20)


def test_images_beside_folders_make_all_unlabelled(make_folder: Callable[..., Path]) -> None:
    folder = make_folder(4, classes=2)
    (folder / "loose.png").write_bytes((folder / "class0/000.png").read_bytes())
    assert open_source(str(folder)).classes is None


def test_split_folders_share_class_ids(make_folder: Callable[..., Path], tmp_path: Path) -> None:
    make_folder(6, classes=3, name="set/train")
    make_folder(2, classes=1, name="set/validation")
    (tmp_path / "set/validation/class0").rename(tmp_path / "set/validation/class2")
    spec = str(tmp_path / "set")
    assert source_splits(spec) == ["train", "val"]
    val = open_source(spec, "val")
    assert val.classes == ["class0", "class1", "class2"]
    assert val.labels().tolist() == [2, 2]
    assert len(open_source(spec, "validation")) == 2
    with pytest.raises(UserError, match="has no split 'test'; it has: train, val"):
        open_source(spec, "test")


def test_a_class_called_train_is_a_class(make_folder: Callable[..., Path], tmp_path: Path) -> None:
    for name in ("bus", "car", "train"):
        make_folder(2, name=f"traffic/{name}")
    source = open_source(str(tmp_path / "traffic"))
    assert source.classes == ["bus", "car", "train"]
    make_folder(2, name="one/train")
    assert source_splits(str(tmp_path / "one")) == ["train"]
    assert open_source(str(tmp_path / "one")).classes is None


def test_linked_folders_are_followed_once(make_folder: Callable[..., Path]) -> None:
    folder = make_folder(3, classes=1)
    (folder / "class0" / "loop").symlink_to(folder)
    assert len(open_source(str(folder))) == 3


def test_faults_of_folders(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no such folder or file"):
        open_source(str(tmp_path / "nowhere"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"no image files below .*looked for \.jpg, \.jpeg, \.png"):
        open_source(str(tmp_path / "empty"))
    (tmp_path / "thing.doc").write_bytes(b"x")
    with pytest.raises(UserError, match="a source is a folder, a list"):
        open_source(str(tmp_path / "thing.doc"))
    with pytest.raises(UserError, match="wildcards are not expanded"):
        open_source(str(tmp_path / "*.png"))


def test_vanished_file_is_a_corrupt_sample(make_folder: Callable[..., Path]) -> None:
    folder = make_folder(3)
    source = open_source(str(folder))
    (folder / "001.png").unlink()
    with pytest.raises(CorruptSample, match="No such file") as fault:
        source.read(1, 0)
    assert fault.value.kind == "missing"


# --- lists ---


def test_text_list(make_folder: Callable[..., Path], tmp_path: Path) -> None:
    make_folder(3)
    file = tmp_path / "list.txt"
    file.write_text("photos/002.png\tcat\nphotos/000.png\tant\n\nphotos/001.png\n")
    source = open_source(str(file))
    assert keys(source) == ["photos/002.png", "photos/000.png", "photos/001.png"]
    assert source.classes == ["ant", "cat"]
    assert source.labels().tolist() == [1, 0, -1]
    assert source.read(2, 0).label is None


def test_table_with_header_and_splits(make_folder: Callable[..., Path], tmp_path: Path) -> None:
    folder = make_folder(3)
    file = tmp_path / "list.csv"
    file.write_text(
        f'label,path,split\n7,"{folder}/000.png",train\n2,photos/001.png,train\n'
        "7,photos/002.png,validation\n"
    )
    assert source_splits(str(file)) == ["train", "val"]
    source = open_source(str(file))
    assert source.labels().tolist() == [7, 2]
    assert source.classes == [str(i) for i in range(8)]
    assert len(open_source(str(file), "val")) == 1
    file.with_suffix(".tsv").write_text("photos/000.png\t1\n")
    assert open_source(str(file.with_suffix(".tsv"))).labels().tolist() == [1]


def test_faults_of_lists(make_folder: Callable[..., Path], tmp_path: Path) -> None:
    make_folder(1)
    file = tmp_path / "list.txt"
    file.write_text("photos/000.png\nphotos/gone.png\npipe:touch x\n")
    with pytest.raises(DataError, match=r"2 of 3 listed files do not exist, the first is .*gone"):
        open_source(str(file))
    file.write_text("\n")
    with pytest.raises(DataError, match="the list is empty"):
        open_source(str(file))
    table = tmp_path / "list.csv"
    table.write_text("path,label\n,3\n")
    with pytest.raises(DataError, match="row 1 names no file"):
        open_source(str(table))


# --- embedded ---


@pytest.mark.parametrize(
    ("name", "train", "test", "classes", "size"),
    [("fashion-mnist", 5000, 1000, 10, 28), ("openclipart", 1880, 469, 11, 64)],
)
def test_embedded_sets(name: str, train: int, test: int, classes: int, size: int) -> None:
    spec = f"embedded:{name}"
    assert source_splits(spec) == ["test", "train"]
    for split, count in (("train", train), ("test", test)):
        source = pickle.loads(pickle.dumps(open_source(spec, split)))
        assert len(source) == count
        assert source.classes is not None
        assert len(source.classes) == classes
        assert set(source.labels()) == set(range(classes))
        assert source.decode(source.read(*source.locate(count - 1))).shape == (3, size, size)
    with pytest.raises(UserError, match="has no split 'val'; it has: test, train"):
        open_source(spec, "val")


def test_embedded_gray_is_the_stored_image() -> None:
    gray = open_source("embedded:fashion-mnist", channels="gray")
    image = gray.decode(gray.read(5, 0))
    assert torch.equal(image[0], torch.from_numpy(gray.read(5, 0).payload))


def test_unknown_embedded_set_has_a_near_miss() -> None:
    with pytest.raises(UserError, match="Did you mean fashion-mnist"):
        open_source("embedded:fashionmnist")


# --- schemes ---


@pytest.mark.parametrize(
    "spec", ["pipe:touch x", "{pipe,file}:touch x", "x{,}pipe:touch", "PIPE:touch x"]
)
def test_pipe_is_never_opened(spec: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"would run a command|unknown scheme"):
        open_source(spec)
    assert not list(tmp_path.iterdir())


def test_other_schemes_and_braces() -> None:
    with pytest.raises(UserError, match="unknown scheme 'gs:'"):
        open_source("gs://bucket/a.tar")
    with pytest.raises(UserError, match="unbalanced braces"):
        open_source("a{0..3.tar")
    with pytest.raises(UserError, match="stands for more than"):
        open_source("a{0..999999999999}.tar")


def test_string_table() -> None:
    texts = ["", "a", "naïve/\udcff.png", "", "z"]
    table = StringTable.of(texts)
    assert list(table) == texts
    assert len(StringTable.of([])) == 0
    with pytest.raises(IndexError):
        table[5]
    assert isinstance(table.ends, np.ndarray)
