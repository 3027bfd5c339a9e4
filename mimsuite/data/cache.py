"""Files derived from the user's data, written atomically beside it or in a cache folder."""

from __future__ import annotations

import os
from pathlib import Path

from mimsuite.errors import UserError
from mimsuite.files import write_atomic


def cache_folder() -> Path:
    """``$MIMSUITE_CACHE`` if set, else ``mimsuite`` in the user's cache folder."""
    if own := os.environ.get("MIMSUITE_CACHE"):
        return Path(own)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "mimsuite"


def write_first_possible(paths: list[Path], content: bytes) -> Path:
    """Write to the first path whose folder is writable.

    Raises:
        UserError: no folder is writable.
    """
    for path in paths:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(path, content)
        except OSError:
            continue
        return path
    places = " or ".join(str(path.parent) for path in paths)
    raise UserError(f"cannot write {paths[0].name} in {places}: set MIMSUITE_CACHE to a folder")
