"""The tensors of a pickled module, without running anything that is in it.

``torch.save(module)`` writes a whole object, and to load it as usual means to run what the file
says. Here the pickle is only read: every name that it asks for is answered by a stub that does
nothing, tensors are put together from the stored numbers, and a name outside of the known packages
ends the reading.
"""

from __future__ import annotations

import io
import math
import pickle
import zipfile
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from torch import Tensor

from mimsuite.errors import UserError
from mimsuite.weights.files import check_archive

_MAGIC = 0x1950A86A20F9469CFC6C  # first number of what torch.save wrote before version 1.6
_TYPES = {
    "FloatStorage": np.float32,
    "HalfStorage": np.float16,
    "DoubleStorage": np.float64,
    "LongStorage": np.int64,
}
_STUBBED = ("torch", "attr", "functools", "collections")
_HARMLESS = {"set": set, "list": list, "dict": dict, "int": int, "float": float, "bool": bool}


class Stub:
    """Stands for any object of the pickled module: it keeps what it is given and does nothing."""

    def __init__(self, *args: Any, **keywords: Any) -> None:
        self.state: Any = {}

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def __call__(self, *args: Any, **keywords: Any) -> Stub:
        return Stub()

    def __setitem__(self, key: Any, value: Any) -> None:
        """Items of containers that are not the module's parts."""


@dataclass(frozen=True)
class Stored:
    """A tensor whose numbers are still in the file."""

    key: str
    dtype: type
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


class Reader(pickle.Unpickler):
    """Knows tensors and stubs, and nothing that could act.

    Args:
        package: whose classes are stubbed, beside those of torch and a few others.
    """

    def __init__(self, file: IO[bytes], package: str) -> None:
        super().__init__(file)
        self._stubbed = (*_STUBBED, package)

    def find_class(self, module: str, name: str) -> Any:
        if module == "collections" and name == "OrderedDict":
            return OrderedDict
        if module == "torch._utils" and name.startswith("_rebuild_tensor"):
            return _tensor
        if module == "torch._utils" and name.startswith("_rebuild_parameter"):
            return _parameter
        if module == "torch" and name in _TYPES:
            return name
        if module in ("builtins", "__builtin__") and name in _HARMLESS:
            return _HARMLESS[name]
        if module.partition(".")[0] not in self._stubbed:
            raise UserError(f"it asks for {module}.{name}, which no network needs: nothing was run")
        return Stub

    def persistent_load(self, pid: Any) -> Any:
        """A storage, as (dtype, key); its numbers are read later. Or a class beside its source."""
        if isinstance(pid, tuple) and pid[0] == "module":
            return pid[1]
        if not isinstance(pid, tuple) or pid[0] != "storage" or pid[1] not in _TYPES:
            raise UserError(f"it holds a storage of a kind that no network needs: {str(pid)[:80]}")
        return _TYPES[pid[1]], str(pid[2])


def _tensor(storage: Any, offset: int, size: Any, stride: Any, *rest: Any) -> Stored:
    dtype, key = storage
    return Stored(key, dtype, int(offset), tuple(size), tuple(stride))


def _parameter(data: Stored, *rest: Any) -> Stored:
    return data


def read_module(path: Path, package: str) -> dict[str, Tensor]:
    """The tensors of a pickled module by their names, float32.

    Args:
        package: of Python, that the module's classes are from.

    Raises:
        UserError: not such a file, damage, or a pickle that asks for anything else.
    """
    if zipfile.is_zipfile(path):
        check_archive(path)
    try:
        with path.open("rb") as file:
            if zipfile.is_zipfile(file):
                root, storages = _read_archive(file, package)
            else:
                file.seek(0)
                root, storages = _read_stream(file, package)
        stored = dict(_parts(root, ""))
        return {name: _filled(one, storages) for name, one in stored.items()}
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None
    except Exception as error:  # damage can raise any error of the parser
        raise UserError(
            f"{path} is damaged or no pickled module: {type(error).__name__}: {error}"
        ) from None


def _read_archive(file: IO[bytes], package: str) -> tuple[Any, dict[str, bytes]]:
    """What torch.save writes since version 1.6."""
    with zipfile.ZipFile(file) as archive:
        names = archive.namelist()
        (data,) = [name for name in names if name.endswith("/data.pkl")]
        root = Reader(io.BytesIO(archive.read(data)), package).load()
        folder = data.removesuffix(".pkl") + "/"
        found = [name for name in names if name.startswith(folder)]
        return root, {name.removeprefix(folder): archive.read(name) for name in found}


def _read_stream(file: IO[bytes], package: str) -> tuple[Any, dict[str, bytes]]:
    """What it wrote before: pickles one after the other, then each storage behind its size."""
    if Reader(file, package).load() != _MAGIC:
        raise UserError("not written by torch.save")
    Reader(file, package).load()  # version of the format
    Reader(file, package).load()  # skip the machine's byte order and sizes of numbers
    reader = Reader(file, package)
    root = reader.load()
    keys = Reader(file, package).load()
    types = {one.key: one.dtype for _, one in _parts(root, "")}
    storages = {}
    for key in map(str, keys):
        count = int.from_bytes(file.read(8), "little")
        size = count * np.dtype(types.get(key, np.float32)).itemsize
        storages[key] = file.read(size)
    return root, storages


def _parts(module: Any, prefix: str) -> list[tuple[str, Stored]]:
    """Parameters and buffers of a stubbed module and of the modules in it."""
    state = module.state if isinstance(module, Stub) else {}
    if not isinstance(state, dict):
        return []
    found: list[tuple[str, Stored]] = []
    for table in ("_parameters", "_buffers"):
        for name, value in (state.get(table) or {}).items():
            if isinstance(value, Stored):
                found.append((f"{prefix}{name}", value))
    for name, value in (state.get("_modules") or {}).items():
        found += _parts(value, f"{prefix}{name}.")
    return found


def _filled(one: Stored, storages: dict[str, bytes]) -> Tensor:
    numbers = torch.from_numpy(np.frombuffer(storages[one.key], dtype=one.dtype).copy())
    last = one.offset + sum(
        (n - 1) * step for n, step in zip(one.shape, one.stride, strict=True) if n > 1
    )
    if min((one.offset, *one.shape, *one.stride), default=0) < 0 or last >= max(len(numbers), 1):
        raise UserError("a tensor claims numbers that the file does not hold")
    if math.prod(one.shape) > len(numbers):
        raise UserError("a tensor claims more numbers than the file holds")
    tensor = numbers.as_strided(one.shape, one.stride, one.offset)
    return tensor.contiguous().float().clone()
