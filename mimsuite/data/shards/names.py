"""From what the user wrote to the files and addresses of a shard set; nothing is opened here."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from urllib.parse import unquote, urlsplit

from braceexpand import braceexpand

from mimsuite.data.stores.url import SCHEMES, Url
from mimsuite.errors import DataError, UserError
from mimsuite.paths import expand_path

_MOST_SHARDS = 1_000_000
_SCHEME = re.compile(r"^([A-Za-z][A-Za-z0-9+.-]*):")
_RANGE = re.compile(r"\{(-?\d{1,30})\.\.(-?\d{1,30})")


def places_of(spec: str) -> list[Path] | list[Url]:
    """What a source names: itself where it is there, whatever its name looks like, else expanded.

    Raises:
        UserError: an empty name, or as :func:`expand_path` and :func:`expand`.
    """
    if not spec:
        raise UserError("the name of the source is empty: give a folder, a list, shards or a set")
    spec = expand_path(spec)
    return [Path(spec)] if Path(spec).exists() else expand(spec)


def expand(pattern: str) -> list[Path] | list[Url]:
    """``train-{0000..0015}.tar`` -> 16 paths; a plain path -> itself; addresses in the same way.

    Raises:
        UserError: unbalanced braces, a pattern of millions, local and remote names in one, or any
            scheme but ``file``, ``http``, ``https`` and ``s3``. That is judged of each name after
            expansion, since ``{pipe,x}:`` hides a scheme before it.
    """
    for first, last in _RANGE.findall(pattern):  # it would be written out before it is counted
        if abs(int(last) - int(first)) >= _MOST_SHARDS:
            raise UserError(f"'{pattern}' stands for more than {_MOST_SHARDS} shards")
    try:
        names = list(islice(braceexpand(pattern), _MOST_SHARDS + 1))
    except ValueError:  # its UnbalancedBracesError
        raise UserError(f"unbalanced braces in '{pattern}'") from None
    if len(names) > _MOST_SHARDS:
        raise UserError(f"'{pattern}' stands for more than {_MOST_SHARDS} shards")
    places = [place_of(name) for name in names]
    paths = [place for place in places if isinstance(place, Path)]
    urls = [place for place in places if isinstance(place, Url)]
    if paths and urls:
        raise UserError(f"'{pattern}' names local and remote shards: name one kind")
    return paths or urls


def place_of(name: str) -> Path | Url:
    """A path, a ``file:`` URL as a path, or a remote address.

    Raises:
        UserError: any other scheme.
    """
    match = _SCHEME.match(name)
    if match is None:
        return Path(name)
    scheme = match[1].lower()
    if scheme == "file":
        url = urlsplit(name)
        if url.netloc not in ("", "localhost"):
            raise UserError(f"{name}: a file: URL of another machine cannot be read")
        return Path(unquote(url.path))
    if scheme in SCHEMES:
        return Url.parse(f"{scheme}{name[len(scheme) :]}")
    if scheme == "pipe":
        raise UserError(f"{name}: pipe: would run a command and is never opened")
    raise UserError(f"{name}: unknown scheme '{scheme}:'; give a path, or s3:, https: or http:")


def shard_files(folder: Path) -> list[Path]:
    """The ``*.tar`` files of a folder, sorted by name; hidden ones are left out."""
    return [folder / name for name in sorted(shard_names(folder))]


def shard_names(folder: Path) -> Iterator[str]:
    """The names of :func:`shard_files`, as they lie."""
    return (name for name in os.listdir(folder) if name.endswith(".tar") and name[0] != ".")


def refuse_compressed(path: Path | Url) -> None:
    """Raise a ``DataError`` where a shard's name says that it is compressed."""
    if path.name.endswith((".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")):
        raise DataError(f"{path} is compressed: unpack it to a plain .tar, or use data pack")
