"""Published point sets as folders of clouds; pickles that hold more than arrays are refused."""

from __future__ import annotations

import json
import os
import pickle
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path[:0] = [str(Path(__file__).resolve().parents[2] / "tools")]
import convert_points  # noqa: E402

from mimsuite.data import open_source  # noqa: E402


def cloud(columns: int = 6) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(30, columns)).astype(np.float32)


def test_modelnet(tmp_path: Path) -> None:
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    (folder / "modelnet40_shape_names.txt").write_text("airplane\nbathtub\n")
    for split in ("train", "test"):
        with (folder / f"modelnet40_{split}_8192pts_fps.dat").open("wb") as file:
            pickle.dump([[cloud(), cloud()], [np.array([1]), np.array([0])]], file)
    assert convert_points.convert(convert_points.modelnet(folder), out) == {"train": 2, "test": 2}
    source = open_source(str(out), modality="points")
    assert source.classes == ["airplane", "bathtub"]
    assert source.decode(source.read(0, 0)).shape == (30, 3)


def test_few_shot(tmp_path: Path) -> None:
    path = tmp_path / "0.pkl"
    path.write_bytes(pickle.dumps({"train": [(cloud(), 0, 7)], "test": [(cloud(), 1, 9)] * 2}))
    written = convert_points.convert(convert_points.fewshot(path), tmp_path / "out")
    assert written == {"train": 1, "test": 2}


def test_shapenetpart_keeps_parts(tmp_path: Path) -> None:
    folder, out = tmp_path / "in", tmp_path / "out"
    (folder / "train_test_split").mkdir(parents=True)
    (folder / "02691156").mkdir()
    (folder / "synsetoffset2category.txt").write_text("Airplane\t02691156\n")
    np.savetxt(folder / "02691156" / "a.txt", np.c_[cloud(), np.full(30, 3)])
    for kind in ("train", "val", "test"):
        entries = ["shape_data/02691156/a"] if kind != "val" else []
        path = folder / "train_test_split" / f"shuffled_{kind}_file_list.json"
        path.write_text(json.dumps(entries))
    convert_points.convert(convert_points.shapenetpart(folder), out)
    source = open_source(str(out), modality="points")
    assert source.decode(source.read(0, 0))[:, 3].unique().tolist() == [3]


def test_shapenet55_by_its_lists(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    (folder / "shapenet_pc").mkdir(parents=True)
    for number, split in enumerate(("train", "test")):
        np.save(folder / "shapenet_pc" / f"0269-{number}.npy", cloud(3))
        (folder / f"{split}.txt").write_text(f"0269-{number}.npy\n")
    written = convert_points.convert(convert_points.shapenet55(folder), tmp_path / "out")
    assert written == {"train": 1, "test": 1}
    assert (tmp_path / "out/test/0269/0269-1.npy").is_file()


class Evil:
    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (os.environ.get("EVIL", "evil"),)


@pytest.mark.parametrize("content", [pickle.dumps(Evil()), b"\x80\x04garbage", b""])
def test_a_pickle_of_more_than_arrays_is_refused(
    content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EVIL", str(tmp_path / "evil"))
    if b"mkdir" in content:
        content = pickle.dumps(Evil())
    path = tmp_path / "0.pkl"
    path.write_bytes(content)
    with pytest.raises(SystemExit, match=r"0\.pkl: "):
        convert_points.unpickle(path)
    assert not (tmp_path / "evil").exists()
