"""Further on-disk layouts, beside plain files, lists and shards.

A layout is a module with three functions; a decoder lists the layouts of its samples:

- ``speaks_of(path)``: whether the path is certainly a set in this layout.
- ``splits_in(path, decoder)``: its splits; None if it is no such set.
- ``open_set(path, split, decoder, name)``: open a split as a source.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from importlib import import_module
from pathlib import Path
from typing import Protocol, cast

from mimsuite.data.decoder import Decoder
from mimsuite.data.source import Source


class Layout(Protocol):
    """The functions of a layout module; see the module's docstring."""

    def speaks_of(self, path: Path) -> bool: ...

    def splits_in(self, path: Path, decoder: Decoder) -> Collection[str] | None: ...

    def open_set(self, path: Path, split: str, decoder: Decoder, name: str) -> Source: ...


def layout_of(path: Path, decoder: Decoder) -> Layout | None:
    """The first of the decoder's layouts that fits the path, or None."""
    known = map(_layout, decoder.layouts)
    return next((one for one in known if one.splits_in(path, decoder) is not None), None)


def speaks_of(path: Path, layouts: Iterable[str]) -> bool:
    """Whether a path is certainly a set in one of these layouts."""
    return any(_layout(name).speaks_of(path) for name in layouts)


def _layout(name: str) -> Layout:
    return cast(Layout, import_module(name))
