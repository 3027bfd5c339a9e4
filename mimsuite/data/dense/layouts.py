"""Registry of dense layouts, and detection of a folder's layout."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

from mimsuite.data.dense import ade20k, nyuv2, scenes, voc
from mimsuite.errors import UserError

# Each module defines SHAPE, looks_so, splits and listing. The most specific layouts come first.
LAYOUTS: dict[str, ModuleType] = {"scenes": scenes, "voc": voc, "ade20k": ade20k, "nyuv2": nyuv2}


def layout_of(root: Path) -> str:
    """The name of a folder's layout.

    Raises:
        UserError: no such folder, or it has none of these layouts.
    """
    if not root.is_dir():
        raise UserError(f"{root}: there is no such folder; pixel labels are read from folders")
    for name, layout in LAYOUTS.items():
        if layout.looks_so(root):
            return name
    shapes = "; ".join(f"{name} ({layout.SHAPE})" for name, layout in LAYOUTS.items())
    raise UserError(f"{root} has none of the supported layouts: {shapes}")
