"""Conversion of point sets published as pickles to folders of ``.npy`` clouds.

- ModelNet40 with 8,192 points: ``modelnet40_train_8192pts_fps.dat``, the same with ``test``, and
  ``modelnet40_shape_names.txt``.
- Few-shot episodes of ModelNet40: ``5way_10shot/0.pkl``, one file per fold.

A pickle is a program. The unpickler here accepts only numpy arrays, numbers, text and plain
containers. It replaces every function that a file names by a stand-in that only stores data, so
nothing in the file is executed.
"""

from __future__ import annotations

import os
import pickle
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from mimsuite.errors import DataError, UserError
from mimsuite.weights.harmless import HARMLESS, Array

_CODEC = "latin1"  # encoding of bytes in old protocols, written by Python 3 or Python 2


@dataclass(frozen=True)
class Cloud:
    """A cloud and its destination: ``place/CLASS/NAME.npy``.

    Attributes:
        place: ``train`` or ``test``; for episodes, below the episode's folder.
        points: (N, 3) float32.
    """

    place: Path
    kind: str
    name: str
    points: np.ndarray


def convert(
    source: Path, out: Path, progress: Callable[[int, int], None] = lambda done, total: None
) -> dict[str, int]:
    """Write the clouds of a pickled set to ``out/{train,test}/CLASS/NAME.npy``.

    Args:
        source: one of the ``.dat`` files, a ``.pkl`` file, or a folder of either. Episodes in a
            folder keep their relative paths: ``out/5way_10shot/0/{train,test}/...``.
        out: a new or empty folder; written atomically.

    Returns:
        number of samples by split.

    Raises:
        UserError: no such file, or ``out`` is not empty or cannot be written.
        DataError: a file is damaged, contains other objects than arrays, or has no clouds.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out} is there already and not empty: name a new folder")
    clouds = _clouds(source)
    written: dict[str, int] = {}
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".mimsuite-convert-", dir=out.parent) as hidden:
            whole = Path(hidden) / "clouds"
            for number, cloud in enumerate(clouds, start=1):
                folder = whole / cloud.place / cloud.kind
                folder.mkdir(parents=True, exist_ok=True)
                np.save(folder / f"{cloud.name}.npy", cloud.points, allow_pickle=False)
                written[cloud.place.name] = written.get(cloud.place.name, 0) + 1
                progress(number, 0)
            if not written:
                raise DataError(f"{source} holds no clouds")
            os.replace(whole, out)
    except OSError as error:
        raise UserError(f"cannot write {out}: {error.strerror or error}") from error
    return written


def _clouds(source: Path) -> Iterator[Cloud]:
    """The clouds of a file or folder; files are read lazily."""
    if source.suffix == ".pkl" and source.is_file():
        return _episode(source, Path())
    tables = [source] if source.suffix == ".dat" else sorted(source.glob("*_train_*.dat"))
    if len(tables) > 1:
        names = ", ".join(path.name for path in tables)
        raise UserError(f"{source} holds {len(tables)} sets: name one file of them: {names}")
    if tables:
        return _modelnet(tables[0])
    folds = sorted(source.rglob("*.pkl"))
    if not folds:
        raise UserError(
            f"{source} is no pickled point set: a .dat file of ModelNet40, a .pkl file of a "
            f"few-shot episode, or a folder of them is needed; other sets need no conversion"
        )
    places = (fold.relative_to(source).with_suffix("") for fold in folds)
    return chain.from_iterable(map(_episode, folds, places))


def _modelnet(path: Path) -> Iterator[Cloud]:
    start, split, end = path.name.rpartition("_test_" if "_test_" in path.name else "_train_")
    if not split:
        raise UserError(f"{path}: no split in its name: expected _train_ or _test_")
    names = _class_names(path.with_name(f"{start}_shape_names.txt"))
    for split in ("train", "test"):
        file = path.with_name(f"{start}_{split}_{end}")
        points, labels = (_rows(file, rows) for rows in _rows(file, unpickle(file), least=2)[:2])
        if len(points) != len(labels):
            raise DataError(f"{file} holds {len(points)} clouds and {len(labels)} labels")
        for number, (cloud, label) in enumerate(zip(points, labels, strict=True)):
            index = _label(file, label)
            if index >= len(names):
                raise DataError(f"{file}: class {index} of cloud {number}, of {len(names)} names")
            where = f"{file}, cloud {number}"
            yield Cloud(Path(split), names[index], f"{number:06d}", _points(where, cloud))


def _episode(path: Path, place: Path) -> Iterator[Cloud]:
    content = unpickle(path)
    for split in ("train", "test"):
        if not isinstance(content, dict) or not isinstance(content.get(split), list):
            raise DataError(f"{path}: no few-shot episode: there is no list '{split}' in it")
        for number, entry in enumerate(content[split]):
            cloud, label = _rows(path, entry, least=2)[:2]
            where = f"{path}, cloud {number} of {split}"
            kind = f"{_label(path, label):02d}"
            yield Cloud(place / split, kind, f"{number:06d}", _points(where, cloud))


def _class_names(path: Path) -> list[str]:
    """One class name per line; each becomes a folder name."""
    try:
        names = [line.strip() for line in path.read_text("utf-8").splitlines() if line.strip()]
    except OSError as fault:
        raise UserError(f"{path}, which names the classes: {fault.strerror or fault}") from None
    except UnicodeDecodeError:
        raise DataError(f"{path}, which names the classes, is no text") from None
    if odd := [name for name in names if name.startswith(".") or Path(name).name != name]:
        raise DataError(f"{path}: {odd[0]} is no name of a class")
    return names


def _rows(path: Path, value: Any, least: int = 0) -> list[Any]:
    rows = list(value) if isinstance(value, list | tuple) else None
    if isinstance(value, Array) and (table := value.values()) is not None and table.ndim:
        rows = list(table)
    if rows is None or len(rows) < least:
        raise DataError(f"{path} is no list of clouds and their labels")
    return rows


def _numbers(value: Any) -> np.ndarray | None:
    return value.values() if isinstance(value, Array) else np.asarray(value)


def _label(path: Path, value: Any) -> int:
    label = _numbers(value)
    if label is None or label.size != 1 or label.dtype.kind not in "iu" or label.min() < 0:
        raise DataError(f"{path}: a label is not one whole number from 0 on")
    return int(label.reshape(()))


def _points(where: str, value: Any) -> np.ndarray:
    """(N, 3) float32 from (N, 3 or more) numbers; normals are dropped."""
    table = _numbers(value)
    if table is None or table.ndim != 2 or table.shape[1] < 3 or table.dtype.kind not in "fiu":
        raise DataError(f"{where} is no cloud: (N, 3) numbers or more columns are needed")
    points = table[:, :3].astype("<f4")
    if not np.isfinite(points).all():
        raise DataError(f"{where}: a coordinate is not finite")
    return points


def unpickle(path: Path) -> Any:
    """Read a pickle of arrays; arrays become :class:`mimsuite.weights.harmless.Array`.

    Raises:
        UserError: the file cannot be read.
        DataError: the file is damaged or contains other objects.
    """
    try:
        with path.open("rb") as file:
            return _ArrayUnpickler(file, encoding=_CODEC).load()
    except OSError as fault:
        raise UserError(f"{path} cannot be read: {fault.strerror or fault}") from None
    except Exception as fault:  # a damaged pickle can raise any exception
        raise DataError(f"{path} is damaged or no pickle of arrays: {fault}") from None


class _ArrayUnpickler(pickle.Unpickler):
    """Resolves the names in a pickle to stand-ins, and refuses all others."""

    def find_class(self, module: str, name: str) -> Any:
        stand_in = _STAND_INS.get(f"{module}.{name}")
        if stand_in is None:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}; nothing of it ran")
        return stand_in


def _encoded(text: str, codec: str) -> bytes:
    """Stand-in for ``_codecs.encode``, which protocols below 3 use for bytes."""
    if codec != _CODEC:
        raise pickle.UnpicklingError(f"bytes in the encoding {codec}")
    return text.encode(_CODEC)


def _from_buffer(content: Any, kind: Any, shape: tuple[int, ...], order: str) -> Array:
    """Stand-in for numpy's array constructor in protocol 5."""
    array = Array()
    array.__setstate__((1, shape, kind, order == "F", bytes(content)))
    return array


_STAND_INS: dict[str, Any] = {
    **{pair[1]: pair[0] for pair in HARMLESS if isinstance(pair, tuple) and "numpy" in pair[1]},
    "numpy.core.numeric._frombuffer": _from_buffer,
    "numpy._core.numeric._frombuffer": _from_buffer,
    "_codecs.encode": _encoded,
}
