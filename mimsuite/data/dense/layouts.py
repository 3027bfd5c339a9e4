"""The layouts by name, and which one a folder has."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

from mimsuite.data.dense import ade20k, nyuv2, scenes, voc
from mimsuite.errors import UserError

# Each module has SHAPE, looks_so, splits and listing; the more telling shapes come first.
LAYOUTS: dict[str, ModuleType] = {"scenes": scenes, "voc": voc, "ade20k": ade20k, "nyuv2": nyuv2}


def layout_of(root: Path) -> str:
    """The name of a folder's layout.

    Raises:
        UserError: no such folder, or one of none of these layouts.
    """
    if not root.is_dir():
        raise UserError(f"{root}: there is no such folder; dense truth is read from folders")
    for name, layout in LAYOUTS.items():
        if layout.looks_so(root):
            return name
    shapes = "; ".join(f"{name} ({layout.SHAPE})" for name, layout in LAYOUTS.items())
    raise UserError(f"{root} has none of the layouts that are read: {shapes}")
