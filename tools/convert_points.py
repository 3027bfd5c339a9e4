"""Turn published point-cloud sets into folders of .npy clouds, which `mimsuite data pack` packs.

    convert_points.py shapenet55 DIR OUT        DIR holds the clouds, train.txt and test.txt
    convert_points.py modelnet DIR OUT          *_train_8192pts_fps.dat and *_test_8192pts_fps.dat,
                                                and *_shape_names.txt
    convert_points.py scanobjectnn DIR OUT      training_*.h5 and test_*.h5 of one variant (h5py)
    convert_points.py fewshot FOLD.pkl OUT      one fold of ModelNet few-shot
    convert_points.py shapenetpart DIR OUT      points with the part of each in a fourth column

OUT/{train,test}/CLASS/NAME.npy is written. Some of these files are pickles, which are programs:
they are read by an unpickler that knows numpy arrays and plain containers, and nothing else.
"""

from __future__ import annotations

import argparse
import json
import pickle
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

Cloud = tuple[str, str, str, np.ndarray]  # split, class, name, (N, columns)

_ALLOWED = {
    (module, name)
    for package in ("numpy.core", "numpy._core")
    for module, name in (
        (f"{package}.multiarray", "_reconstruct"),
        (f"{package}.multiarray", "scalar"),
        (f"{package}.numeric", "_frombuffer"),
    )
} | {("numpy", "ndarray"), ("numpy", "dtype"), ("_codecs", "encode")}


class ArrayUnpickler(pickle.Unpickler):
    """Reads arrays, numbers, texts, lists, tuples and dicts."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            raise pickle.UnpicklingError(
                f"it asks for {module}.{name}: not read, nothing of it ran"
            )
        return super().find_class(module, name)


def unpickle(path: Path) -> Any:
    """The content of a pickle of arrays.

    Raises:
        SystemExit: it holds anything else, or is damaged.
    """
    try:
        with path.open("rb") as file:
            return ArrayUnpickler(file, encoding="latin1").load()
    except Exception as fault:  # a damaged pickle raises whatever it was doing
        raise SystemExit(f"{path}: {fault}") from None


def shapenet55(folder: Path) -> Iterator[Cloud]:
    for split in ("train", "test"):
        for line in _lines(folder / f"{split}.txt"):
            path = _first(folder, f"**/{line.strip()}")
            yield split, line.split("-")[0], path.stem, np.load(path, allow_pickle=False)


def modelnet(folder: Path) -> Iterator[Cloud]:
    names = _lines(_first(folder, "*shape_names.txt"))
    for split in ("train", "test"):
        points, labels = unpickle(_first(folder, f"*_{split}_*.dat"))
        for number, (cloud, label) in enumerate(zip(points, labels, strict=True)):
            yield split, names[int(np.ravel(label)[0])], f"{number:06d}", cloud[:, :3]


def scanobjectnn(folder: Path) -> Iterator[Cloud]:
    try:
        import h5py
    except ImportError:
        raise SystemExit("ScanObjectNN comes as HDF5: pip install h5py") from None
    for split, start in (("train", "training"), ("test", "test")):
        with h5py.File(_first(folder, f"{start}_*.h5")) as file:
            for number, (cloud, label) in enumerate(zip(file["data"], file["label"], strict=True)):
                yield split, f"{int(label):02d}", f"{number:06d}", cloud


def fewshot(path: Path) -> Iterator[Cloud]:
    for split, clouds in unpickle(path).items():
        for number, (cloud, label, _) in enumerate(clouds):
            yield split, f"{int(np.ravel(label)[0]):02d}", f"{number:06d}", cloud[:, :3]


def shapenetpart(folder: Path) -> Iterator[Cloud]:
    pairs = (line.split() for line in _lines(folder / "synsetoffset2category.txt"))
    names = {synset: name for name, synset in pairs}
    lists = folder / "train_test_split"
    for kind, split in (("train", "train"), ("val", "train"), ("test", "test")):
        for entry in json.loads((lists / f"shuffled_{kind}_file_list.json").read_text()):
            synset, name = entry.split("/")[-2:]
            rows = np.loadtxt(folder / synset / f"{name}.txt", dtype=np.float32)
            yield split, names[synset], name, rows[:, [0, 1, 2, -1]]


SETS = {
    "shapenet55": shapenet55,
    "modelnet": modelnet,
    "scanobjectnn": scanobjectnn,
    "fewshot": fewshot,
    "shapenetpart": shapenetpart,
}


def _lines(path: Path) -> list[str]:
    if not path.is_file():
        raise SystemExit(f"{path}: there is no such file")
    return [line for line in path.read_text().splitlines() if line.strip()]


def _first(folder: Path, pattern: str) -> Path:
    found = sorted(folder.glob(pattern))
    if not found:
        raise SystemExit(f"{folder}: there is no {pattern} in it")
    return found[0]


def convert(clouds: Iterator[Cloud], out: Path) -> dict[str, int]:
    """Write clouds as float32; samples by split.

    Raises:
        SystemExit: a cloud that is none.
    """
    written: dict[str, int] = {}
    for split, kind, name, cloud in clouds:
        table = np.asarray(cloud, dtype="<f4")
        if table.ndim != 2 or not np.isfinite(table).all():
            raise SystemExit(f"{split}/{kind}/{name}: an array of shape {table.shape} is no cloud")
        path = out / split / kind / f"{name}.npy"
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, table, allow_pickle=False)
        written[split] = written.get(split, 0) + 1
    return written


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("set", choices=sorted(SETS))
    parser.add_argument("source", type=Path)
    parser.add_argument("out", type=Path)
    options = parser.parse_args()
    if options.out.exists() and any(options.out.iterdir()):
        raise SystemExit(f"{options.out} is there already and not empty: name a new folder")
    written = convert(SETS[options.set](options.source), options.out)
    print(json.dumps(written))
    return 0


if __name__ == "__main__":
    sys.exit(main())
