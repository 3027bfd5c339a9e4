"""Objects that a checkpoint may hold besides tensors: numbers, paths, dictionaries, settings.

A pickle names the functions that create its objects. torch's restricted unpickler refuses all
functions but its own list; :data:`HARMLESS` adds stand-ins for some others. A stand-in only stores
plain data. The function named in the file is never imported and never called.
"""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Callable
from pickle import UnpicklingError
from typing import Any

import numpy as np

# Types of numbers and text; no objects (O) and no records (V), which can hold anything.
_TYPE = re.compile(r"[<>=|]?(?:b1|[iu][1248]|f[248]|c(?:8|16)|[SU]\d{1,6})")

_DEEPEST = 20  # nested settings


class NumberType:
    """Stands in for ``numpy.dtype``.

    Raises:
        UnpicklingError: a type whose values can be arbitrary objects.
    """

    def __init__(self, name: Any, *_: Any) -> None:
        if not isinstance(name, str) or not _TYPE.fullmatch(name):
            raise UnpicklingError("GLOBAL numpy.object_")
        self.dtype = np.dtype(name)

    def __setstate__(self, state: Any) -> None:
        if len(state) > 1 and state[1] in ("<", ">"):
            self.dtype = self.dtype.newbyteorder(state[1])


class Array:
    """Stands in for ``numpy.ndarray``; :meth:`values` returns the array."""

    def __init__(self, *_: Any) -> None:
        self._state: Any = None

    def __setstate__(self, state: Any) -> None:
        self._state = state

    def values(self) -> np.ndarray | None:
        """A copy of the array; ``None`` for an unusable one."""
        try:
            _, shape, kind, column_first, content = self._state
            if isinstance(content, str):  # written by Python 2
                content = content.encode("latin1")
            size = math.prod(shape) * kind.dtype.itemsize
            if not isinstance(content, bytes | bytearray) or len(content) != size:
                return None
            flat = np.frombuffer(content, dtype=kind.dtype)
            return flat.reshape(shape, order="F" if column_first else "C").copy()
        except (TypeError, ValueError, AttributeError):
            return None


class Settings:
    """Stands in for the settings classes of libraries; it only stores their content."""

    def __new__(cls, *_: Any, **__: Any) -> Settings:
        return super().__new__(cls)

    def __setstate__(self, state: Any) -> None:
        if isinstance(state, dict):
            self.__dict__.update(state)


def plain(value: Any, depth: int = 0) -> Any:
    """Settings as dictionaries, lists and values; nesting beyond ``_DEEPEST`` is cut off."""
    if depth > _DEEPEST:
        return None
    if isinstance(value, argparse.Namespace | Settings):
        content = vars(value)
        content = content.get("_content", content)  # omegaconf's containers
        return plain(content.get("_val", content) if isinstance(content, dict) else content, depth)
    if isinstance(value, dict):
        return {str(key): plain(inner, depth + 1) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain(inner, depth + 1) for inner in value]
    return value


def _scalar(kind: NumberType, content: bytes = b"") -> Any:
    """Stands in for numpy's constructor of scalars."""
    if isinstance(content, str):  # written by Python 2
        content = content.encode("latin1")
    if not isinstance(kind, NumberType) or len(content) != kind.dtype.itemsize:
        raise UnpicklingError("GLOBAL numpy.object_")
    return np.frombuffer(content, dtype=kind.dtype)[0].item() if content else ""


def _array(*_: Any) -> Array:
    """Stands in for numpy's constructor of arrays, whose content is set later."""
    return Array()


def _path(*parts: Any) -> str:
    """Stands in for the classes of :mod:`pathlib`: a path is text here."""
    return "/".join(str(part) for part in parts).replace("//", "/")


def _dictionary(*_: Any) -> dict[Any, Any]:
    """Stands in for ``defaultdict``, without its factory."""
    return {}


def _no_bytes(*_: Any) -> bytes:
    """Stands in for ``bytes``, which old pickle protocols call for an empty value."""
    return b""


def _none(*_: Any) -> None:
    """Stands in for unused objects."""


def _named(stand_in: Callable[..., Any], *names: str) -> list[tuple[Callable[..., Any], str]]:
    return [(stand_in, name) for name in names]


_PATHS = ("Path", "PosixPath", "WindowsPath", "PurePath", "PurePosixPath", "PureWindowsPath")
_BUILTINS = ("bool", "dict", "float", "int", "list", "str", "tuple")  # factories and types

HARMLESS: list[Any] = [
    argparse.Namespace,
    *_named(argparse.Namespace, "types.SimpleNamespace"),
    *_named(NumberType, "numpy.dtype"),
    *_named(Array, "numpy.ndarray"),
    *(
        pair
        for module in ("numpy.core.multiarray", "numpy._core.multiarray")
        for pair in (
            *_named(_scalar, f"{module}.scalar"),
            *_named(_array, f"{module}._reconstruct"),
        )
    ),
    *(
        pair
        for module in ("pathlib", "pathlib._local")
        for pair in _named(_path, *(f"{module}.{name}" for name in _PATHS))
    ),
    *_named(_dictionary, "collections.defaultdict"),
    *_named(_no_bytes, "builtins.bytes"),
    *_named(_none, *(f"builtins.{name}" for name in _BUILTINS), "typing.Any"),
    *_named(_none, "datetime.datetime", "datetime.date", "datetime.timedelta"),
    *_named(
        Settings,
        "omegaconf.dictconfig.DictConfig",
        "omegaconf.listconfig.ListConfig",
        "omegaconf.base.ContainerMetadata",
        "omegaconf.base.Metadata",
        "omegaconf.nodes.AnyNode",
    ),
]
