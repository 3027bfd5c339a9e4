"""Write and read speed of a folder for checkpoints and data."""

from __future__ import annotations

import os
import shutil
import statistics
import tempfile
import time
from pathlib import Path

from mimsuite.doctor.findings import Finding

_SIZE = 64 << 20  # bytes of the test file
_PIECE = 4 << 20
_SMALL = 8  # number of small files that are synced and renamed
_SLOW = 50e6  # bytes per second below which a disk counts as slow


def check_disk(folder: Path) -> Finding:
    """Time write, sync, rename and read in a folder, or in the folder where it would be created.

    The file is dropped from the page cache before reading; where that has no effect (tmpfs), the
    rate is that of memory.
    """
    place = folder.absolute()
    while not place.exists():
        place = place.parent
    if not place.is_dir():
        return Finding("disk", "missing", f"{place} is a file", "choose another --out")
    try:
        free = shutil.disk_usage(place).free
        if free < 2 * _SIZE:
            value = f"{free / 1e6:.0f} MB free in {place}"
            return Finding("disk", "missing", value, "make room there, or choose another --out")
        with tempfile.TemporaryDirectory(prefix=".mimsuite-doctor-", dir=place) as scratch:
            write = _write(Path(scratch) / "large")
            read = _read(Path(scratch) / "large")
            rename = statistics.median(_save(Path(scratch), n) for n in range(_SMALL))
    except OSError as error:
        value = f"{place}: {error.strerror or error}"
        return Finding("disk", "missing", value, "choose another --out")
    facts = {
        "folder": str(place),
        "free_bytes": free,
        "write_bytes_per_second": write,
        "read_bytes_per_second": read,
        "sync_and_rename_seconds": rename,
    }
    value = (
        f"{place}: writes {write / 1e6:.0f} MB/s with fsync, reads {read / 1e6:.0f} MB/s, "
        f"{rename * 1e3:.1f} ms to sync and rename, {free / 1e9:.0f} GB free"
    )
    if min(write, read) < _SLOW:
        mend = "checkpoints and shards are better kept on a faster disk"
        return Finding("disk", "note", value, mend, facts)
    return Finding("disk", "ok", value, facts=facts)


def _write(path: Path) -> float:
    piece = os.urandom(_PIECE)
    begun = time.perf_counter()
    with open(path, "wb") as file:
        for _ in range(_SIZE // _PIECE):
            file.write(piece)
        file.flush()
        os.fsync(file.fileno())
    return _SIZE / (time.perf_counter() - begun)


def _read(path: Path) -> float:
    with open(path, "rb", buffering=0) as file:
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        begun = time.perf_counter()
        while file.read(_PIECE):
            pass
        return _SIZE / (time.perf_counter() - begun)


def _save(folder: Path, number: int) -> float:
    """Seconds to sync a file, rename it and sync its folder, as when a checkpoint is completed."""
    begun = time.perf_counter()
    with open(folder / f"{number}.new", "wb") as file:
        file.write(b"x")
        file.flush()
        os.fsync(file.fileno())
    os.rename(folder / f"{number}.new", folder / f"{number}")
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
    return time.perf_counter() - begun
