"""`data convert`: point sets published as pickles, read without running what they ask for."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mimsuite.cli.main import main
from mimsuite.data import open_source
from mimsuite.data.points.pickled_sets import convert
from mimsuite.errors import DataError, UserError


def cloud(seed: int = 0, columns: int = 6) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(30, columns)).astype(np.float32)


def modelnet(folder: Path, protocol: int = 4) -> Path:
    folder.mkdir()
    (folder / "modelnet40_shape_names.txt").write_text("airplane\nbathtub\n")
    for split in ("train", "test"):
        content = [[cloud(1), cloud(2)], [np.array([1]), np.array([0])]]
        path = folder / f"modelnet40_{split}_8192pts_fps.dat"
        path.write_bytes(pickle.dumps(content, protocol))
    return folder


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
def test_modelnet(tmp_path: Path, protocol: int) -> None:
    out = tmp_path / "out"
    assert convert(modelnet(tmp_path / "in", protocol), out) == {"train": 2, "test": 2}
    source = open_source(str(out), modality="points")
    assert source.classes == ["airplane", "bathtub"]
    for kind, name, seed in (("bathtub", "000000", 1), ("airplane", "000001", 2)):
        assert np.array_equal(np.load(out / "train" / kind / f"{name}.npy"), cloud(seed)[:, :3])


def test_arrays_as_python_2_pickled_them(tmp_path: Path) -> None:
    """Its `str` is bytes: opcode U where Python 3 writes B."""
    path, values = tmp_path / "0.pkl", cloud()
    content = pickle.dumps({"train": [(values, 0, 7)], "test": [(values, 0, 7)]}, 3)
    path.write_bytes(
        content.replace(
            b"B" + len(values.tobytes()).to_bytes(4, "little"),
            b"T" + len(values.tobytes()).to_bytes(4, "little"),
        )
    )
    convert(path, tmp_path / "out")
    assert np.array_equal(np.load(tmp_path / "out/train/00/000000.npy"), values[:, :3])


def test_one_of_several_sets_is_named(tmp_path: Path) -> None:
    folder = modelnet(tmp_path / "in")
    (folder / "modelnet10_train_8192pts_fps.dat").write_bytes(b"")
    with pytest.raises(UserError, match="holds 2 sets: name one file of them: modelnet10_train"):
        convert(folder, tmp_path / "out")
    chosen = folder / "modelnet40_test_8192pts_fps.dat"
    assert convert(chosen, tmp_path / "out") == {"train": 2, "test": 2}


def test_episodes_keep_their_places(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "fewshot" / "5way_10shot" / "0.pkl"
    path.parent.mkdir(parents=True)
    path.write_bytes(pickle.dumps({"train": [(cloud(), 0, 7)], "test": [(cloud(), 1, 9)] * 2}))
    assert main(["data", "convert", str(path), str(tmp_path / "one"), "--json"]) == 0
    assert '"samples": {\n    "train": 1,\n    "test": 2' in capsys.readouterr().out
    assert (tmp_path / "one/test/01/000001.npy").is_file()
    convert(path.parents[1], tmp_path / "all")
    assert (tmp_path / "all/5way_10shot/0/train/00/000000.npy").is_file()


class Evil:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.mark),)


def test_a_pickle_of_more_than_arrays_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, mark = tmp_path / "0.pkl", tmp_path / "ran"
    path.write_bytes(pickle.dumps({"train": [(Evil(mark), 0, 1)], "test": []}))
    assert main(["data", "convert", str(path), str(tmp_path / "out")]) == 3
    message = capsys.readouterr().err
    assert message.count("\n") == 1
    assert "0.pkl" in message
    assert "mkdir; nothing of it ran" in message
    assert not mark.exists()
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "content",
    [
        *(b"", b"\x80\x04garbage", [1, 2], {"train": [], "test": []}, {"train": [(1, 2)]}),
        {"train": [(cloud()[0], 0)], "test": []},
        {"train": [(cloud() * np.nan, 0)], "test": []},
        {"train": [(cloud(), -1)], "test": []},
        {"train": [(cloud(), "x/../../y")], "test": []},
        {"train": [(cloud().astype(object), 0)], "test": []},
    ],
)
def test_what_is_no_episode_is_named(content: Any, tmp_path: Path) -> None:
    path = tmp_path / "0.pkl"
    path.write_bytes(content if isinstance(content, bytes) else pickle.dumps(content))
    with pytest.raises(DataError, match=r"0\.pkl"):
        convert(path, tmp_path / "out")
    assert [entry.name for entry in tmp_path.iterdir()] == ["0.pkl"]


@pytest.mark.parametrize("names", ["airplane\n", "airplane\n../bathtub\n", "airplane\n..\n"])
def test_classes_that_are_no_folders(names: str, tmp_path: Path) -> None:
    folder = modelnet(tmp_path / "in")
    (folder / "modelnet40_shape_names.txt").write_text(names)
    with pytest.raises(DataError, match="modelnet40"):
        convert(folder, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_clouds_without_labels(tmp_path: Path) -> None:
    folder = modelnet(tmp_path / "in")
    path = folder / "modelnet40_test_8192pts_fps.dat"
    path.write_bytes(pickle.dumps([[cloud(), cloud()], [0]]))
    with pytest.raises(DataError, match="2 clouds and 1 labels"):
        convert(folder, tmp_path / "out")


def test_what_is_there_stays(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    assert convert(modelnet(tmp_path / "in"), out) == {"train": 2, "test": 2}
    with pytest.raises(UserError, match="not empty"):
        convert(tmp_path / "in", out)
    with pytest.raises(UserError, match="no pickled point set"):
        convert(out, tmp_path / "again")
