"""MNIST's own format is read as it lies."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pytest

from mimsuite.cli.main import main
from mimsuite.data import open_source
from mimsuite.data.sources.idx import read_idx
from mimsuite.errors import DataError


def idx(array: np.ndarray) -> bytes:
    return (
        b"\0\0\x08" + bytes([array.ndim]) + np.array(array.shape, ">u4").tobytes() + array.tobytes()
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for stem, count in (("train", 30), ("t10k", 10)):
        images = rng.integers(0, 256, (count, 9, 8), np.uint8)
        path = tmp_path / f"{stem}-images-idx3-ubyte.gz"
        path.write_bytes(gzip.compress(idx(images)))
        labels = np.arange(count, dtype=np.uint8) % 3
        (tmp_path / f"{stem}-labels-idx1-ubyte").write_bytes(idx(labels))
    (tmp_path / "LICENSE").write_text("MIT")
    return tmp_path


def test_splits_images_and_labels(folder: Path) -> None:
    train = open_source(str(folder), channels="gray")
    test = open_source(str(folder), "test", channels="gray")
    assert (len(train), len(test)) == (30, 10)
    assert train.labels().tolist() == [0, 1, 2] * 10
    stored = read_idx(folder / "train-images-idx3-ubyte.gz")
    image = train.decode(train.read(4, 0))
    assert np.array_equal(image[0].numpy(), stored[4])
    image[0, 0, 0] = 0  # it is the caller's own
    assert train.unused.lines() == ["files that are no IDX (1): LICENSE"]


def test_training_and_inspecting_it(folder: Path, tmp_path: Path, capsys) -> None:
    assert main(["data", "inspect", str(folder), "--json"]) == 0
    splits = json.loads(capsys.readouterr().out)["splits"]
    assert {name: split["samples"] for name, split in splits.items()} == {"train": 30, "test": 10}
    assert splits["train"]["classes"] == {"0": 10, "1": 10, "2": 10}
    words = ["pretrain", "image/mae-tiny-fashion", "--smoke", "train.global_batch=10"]
    assert main([*words, "--data", str(folder), "--out", str(tmp_path / "run")]) == 0


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "no IDX"),
        (b"\0\0\x0d\x01\0\0\0\x01\0", "no IDX"),
        (b"\0\0\x08\x03\0\0\0\x01", "claims an array"),
        (b"\0\0\x08\x03\xff\xff\xff\xff\xff\xff\xff\xff\0\0\0\x09", "claims an array"),
        (idx(np.zeros((2, 3, 3), np.uint8))[:-1], "its header claims 18"),
        (idx(np.zeros((2, 3, 3), np.uint8)) + b"x", "its header claims 18"),
    ],
)
def test_a_damaged_file_is_named(data: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "train-images-idx3-ubyte"
    path.write_bytes(data)
    with pytest.raises(DataError, match=message):
        read_idx(path)


def test_labels_of_another_number_are_refused(folder: Path) -> None:
    (folder / "train-labels-idx1-ubyte").write_bytes(idx(np.zeros(29, np.uint8)))
    with pytest.raises(DataError, match="29 labels"):
        open_source(str(folder))
