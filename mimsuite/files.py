"""Files that are there whole or not at all."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any


def write_atomic(path: Path, content: str | bytes) -> Path:
    """Replace a file in one go: readers see the old content or the new, never a part.

    Several processes may do it at once.

    Raises:
        OSError: the folder cannot be written; the old content stays.
    """
    data = content if isinstance(content, bytes) else content.encode("utf-8", "backslashreplace")
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())  # else a power cut may leave the new name without content
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


def write_synced(path: Path, content: bytes) -> dict[str, Any]:
    """Write a file through to the disk; returns its ``bytes`` and ``sha256``.

    Raises:
        OSError: it cannot be written; a part of it may be there.
    """
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    return {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
