"""A model in a folder: its weights in one or several files, and the files that describe it.

Folders of huggingface.co have this layout: ``config.json``, optionally
``preprocessor_config.json``, and ``model.safetensors`` or ``pytorch_model.bin``, either whole or in
parts with an index.
"""

from __future__ import annotations

import json
import re
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mimsuite.errors import UserError
from mimsuite.text import clean

_INDEX = ".index.json"
# In order of preference.
_NAMES = (
    "model.safetensors",
    f"model.safetensors{_INDEX}",
    "pytorch_model.bin",
    f"pytorch_model.bin{_INDEX}",
)
_PART = re.compile(r"-\d+-of-\d+\.\w+$")
_LARGEST = 1 << 26  # bytes of a JSON file; the index of a large model has a few hundred KiB


@dataclass(frozen=True)
class Beside:
    """Content of the files next to the weights.

    Attributes:
        config: ``config.json``, or empty.
        preprocessor: ``preprocessor_config.json``, or empty.
    """

    config: dict[str, Any] = field(default_factory=dict)
    preprocessor: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Shards:
    """The files that hold a model's weights.

    Attributes:
        paths: the files, in reading order.
        names: names of the tensors that an index requires; empty without an index.
        left: names of other weights files in the folder, which are not read.
    """

    paths: list[Path]
    names: frozenset[str] = frozenset()
    left: tuple[str, ...] = ()


def is_model_folder(path: Path) -> bool:
    """Whether a folder holds weights under the names of huggingface.co."""
    return any((path / name).is_file() for name in _NAMES)


def hub_snapshot(path: Path) -> Path:
    """The model inside ``models--OWNER--NAME`` of a cache of huggingface.co; else the path itself.

    Raises:
        UserError: several snapshots, and ``refs/main`` names none of them.
    """
    inside = sorted(path.glob("snapshots/*"))
    if not inside:
        return path
    main = path / "refs" / "main"
    with suppress(OSError, ValueError):
        inside = [place for place in inside if place.name == main.read_text().strip()] or inside
    if len(inside) > 1:
        raise UserError(f"{path} holds {len(inside)} snapshots: give one, as {inside[0]}")
    return inside[0]


def shards(path: Path) -> Shards:
    """The weights files of a path: the file itself, or those of a folder or an index.

    Raises:
        UserError: the folder has no weights, or the index is damaged or names files elsewhere.
    """
    if path.is_dir():
        inside = [name for name in _NAMES if (path / name).is_file()]
        if not inside:
            raise UserError(f"{path} holds none of {', '.join(_NAMES)}")
        chosen = shards(path / inside[0])
        return Shards(chosen.paths, chosen.names, tuple(inside[1:]))
    if path.name == "config.json":
        return shards(path.parent)
    if not path.name.endswith(_INDEX):
        if _PART.search(path.name) and is_model_folder(path.parent):
            raise UserError(f"{path} is a part of a model: give its folder, {path.parent}")
        return Shards([path])
    places = _read_json(path).get("weight_map")
    if not isinstance(places, dict) or not places:
        raise UserError(f"{path} has no weight_map: it is no index of weights")
    for name in places.values():
        if not isinstance(name, str) or Path(name).name != name:
            raise UserError(f"{path} names a file outside its folder: {clean(str(name))[:100]}")
        if not (path.parent / name).is_file():
            raise UserError(f"{path} names {clean(name)}, which is not there: get it too")
    paths = [path.parent / name for name in sorted(set(places.values()))]
    return Shards(paths, frozenset(places))


def beside(path: Path) -> Beside:
    """The descriptions next to weights; empty where there are none.

    Raises:
        UserError: a description is damaged.
    """
    folder = path if path.is_dir() else path.parent
    descriptions = [
        _read_json(folder / name) if (folder / name).is_file() else {}
        for name in ("config.json", "preprocessor_config.json")
    ]
    return Beside(*descriptions)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > _LARGEST:
            raise ValueError("it is too large")
        content = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(content, dict):
            raise TypeError("it is no JSON object")
        return content
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise UserError(f"{path} cannot be read ({str(error).splitlines()[0]})") from None
