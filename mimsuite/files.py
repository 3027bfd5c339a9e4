"""Atomic file writes."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any


def write_atomic(path: Path, content: str | bytes) -> Path:
    """Replace a file atomically: readers see the old or the new content, never a part.

    Several processes may write the same file at once.

    Raises:
        OSError: the folder is not writable; the old content stays.
    """
    data = content if isinstance(content, bytes) else content.encode("utf-8", "backslashreplace")
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())  # a power cut must not leave the new name without content
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


def write_synced(path: Path, content: bytes) -> dict[str, Any]:
    """Write a file and flush it to disk; returns its ``bytes`` and ``sha256``.

    Raises:
        OSError: writing failed; a part of the file may exist.
    """
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    return {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
