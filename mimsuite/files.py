"""Atomic file writes, and the number of files that may be open."""

from __future__ import annotations

import hashlib
import os
import resource
from pathlib import Path
from typing import Any

_FILES = 65_536  # wanted as limit of open files, where the system allows it


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


def allow_many_files() -> int:
    """Raise this process's limit of open files, often 1024, as far as it may; returns the limit.

    Connections count as files, too.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _FILES if hard == resource.RLIM_INFINITY else min(hard, _FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        soft = wanted
    return _FILES if soft == resource.RLIM_INFINITY else soft
