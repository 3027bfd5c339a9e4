"""A cache folder of whole shards with a size limit, shared by all processes of a machine.

``KEY-NAME`` is a shard, ``KEY-NAME.json`` its metadata, ``KEY-NAME.part`` a shard being fetched by
the process that holds its lock. A file named ``KEY-NAME`` is always complete and verified.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import os
import re
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from mimsuite.data.stores.local import LocalFile
from mimsuite.data.stores.transfer import Transfer, Version
from mimsuite.data.stores.url import Url
from mimsuite.errors import DataError, UserError
from mimsuite.files import write_atomic
from mimsuite.noise import key_of
from mimsuite.waiting import waiting

_PIECE = 1 << 20  # bytes per read or write
_log = logging.getLogger(__name__)
_IDLE_SECONDS = 60.0  # a reader of evicted shards that stays away as long lets go of them
_checked: dict[Path, int] = {}  # inodes of the shards that this process has verified


class CachedFile:
    """An open shard of the cache.

    A reader keeps hundreds of shards open, and the disk keeps an evicted shard as long as somebody
    has it open. So one that is evicted and no longer read is closed by :meth:`let_go`; should it be
    read again, it is opened anew.

    Args:
        size: bytes of the shard.
        open_file: opens it, and fetches it first if needed.
    """

    def __init__(self, size: int, open_file: Callable[[], LocalFile]) -> None:
        self.size = size
        self._open_file = open_file
        self._file: LocalFile | None = open_file()
        self._used = time.monotonic()
        self._lock = threading.Lock()
        _opened.add(self)

    def pread(self, size: int, offset: int) -> bytes:
        with self._lock:
            self._used = time.monotonic()
            if self._file is None:
                self._file = self._open_file()
            return self._file.pread(size, offset)

    def let_go(self) -> None:
        """Close the file if it is evicted and was not read for a while."""
        with self._lock:
            idle = time.monotonic() - self._used > _IDLE_SECONDS
            if idle and self._file is not None and self._file.unlinked:
                self._file.close()
                self._file = None

    def close(self) -> None:
        with self._lock:
            file, self._file = self._file, None
        if file is not None:
            file.close()


_opened: weakref.WeakSet[CachedFile] = weakref.WeakSet()


def _let_go_of_evicted() -> None:
    for file in list(_opened):
        file.let_go()


@dataclass(frozen=True)
class ShardCache:
    """The cache folder.

    Attributes:
        folder: created if needed; should contain nothing else.
        gib: size limit in GiB for all shards; shards being read may exceed it for a while.
    """

    folder: Path
    gib: float = 50.0

    def open(self, url: Url, version: Version, sha256: str | None) -> CachedFile:
        """Open a shard; fetch it first if it is missing or damaged.

        Evicted shards that this process no longer reads are closed, which frees their space.

        Args:
            sha256: the expected checksum; None: unknown, the checksum at download is used later.

        Raises:
            DataError: it cannot be fetched, or differs from ``index.json``.
            UserError: the folder cannot be written, or the shard is larger than the limit.
        """
        if version.size > self.gib * 2**30:
            raise UserError(
                f"{url} has {version.size} bytes, more than data.cache_gib={self.gib:g} allows"
            )
        _let_go_of_evicted()  # what other processes evicted makes room
        file = CachedFile(version.size, lambda: self._open_held(url, version, sha256))
        _let_go_of_evicted()  # what this one evicted
        return file

    def _open_held(self, url: Url, version: Version, sha256: str | None) -> LocalFile:
        path = self._path(url, version, sha256)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            while (file := self._held(path)) is None:
                self._fetch(path, url, version, sha256)
            return file
        except OSError as fault:
            raise UserError(
                f"data.cache={self.folder}: {fault.strerror or fault}: name another folder, or "
                f"lower data.cache_gib"
            ) from None

    def _path(self, url: Url, version: Version, sha256: str | None) -> Path:
        # Object names are untrusted: make them safe as file names.
        name = re.sub(r"[^A-Za-z0-9._-]", "_", url.name)[-100:]
        return self.folder / f"{key_of(str(url), version.size, sha256 or version.tag):016x}-{name}"

    def _held(self, path: Path) -> LocalFile | None:
        """The opened shard, if it exists and is intact."""
        try:
            file = LocalFile(os.open(path, os.O_RDONLY))
        except FileNotFoundError:
            return None
        if self._is_sound(path, file):
            os.utime(file.descriptor)  # the least recently opened shard is evicted first
            return file
        if os.fstat(file.descriptor).st_nlink:  # otherwise it has just been evicted
            _log.warning("cached shard %s is damaged: it is fetched again", path)
            path.unlink(missing_ok=True)
        file.close()
        return None

    def _is_sound(self, path: Path, file: LocalFile) -> bool:
        """Compare size and checksum with the metadata, once per process."""
        status = os.fstat(file.descriptor)
        if _checked.get(path) == status.st_ino:
            return True
        try:
            noted = json.loads(_beside(path, ".json").read_bytes())
        except (OSError, ValueError):
            return False
        if noted.get("bytes") != status.st_size or noted.get("sha256") != _digest(file):
            return False
        _checked[path] = status.st_ino
        return True

    def _fetch(self, path: Path, url: Url, version: Version, sha256: str | None) -> None:
        with _locked(_beside(path, ".part")) as descriptor:
            if (file := self._held(path)) is not None:  # another process was faster
                file.close()
                return
            self._make_room(version.size, descriptor)
            with waiting(str(url)):
                found = _download(descriptor, url, version)
            if sha256 not in (None, found):
                raise DataError(
                    f"{url} has another SHA-256 than index.json says: it was replaced or is "
                    f"damaged on the server"
                )
            noted = {"url": str(url), "bytes": version.size, "sha256": found}
            write_atomic(_beside(path, ".json"), json.dumps(noted) + "\n")
            _beside(path, ".part").rename(path)
            _checked[path] = os.fstat(descriptor).st_ino

    def _make_room(self, size: int, descriptor: int) -> None:
        """Evict the least recently opened shards, then give the file its final size."""
        limit = self.gib * 2**30 - size
        with _locked(self.folder / ".room.part"):
            held = []
            for path in self.folder.iterdir():
                if path.name.startswith(".") or path.suffix == ".json":
                    continue
                with suppress(FileNotFoundError):
                    if path.suffix == ".part":
                        _remove_left_over(path)
                    status = path.stat()
                    held.append((status.st_mtime_ns, status.st_size, path))
            total = sum(bytes_ for _, bytes_, _ in held)
            for _, bytes_, path in sorted(held):
                if total <= limit:
                    break
                if path.suffix != ".part":
                    path.unlink(missing_ok=True)
                    _beside(path, ".json").unlink(missing_ok=True)
                    total -= bytes_
            os.truncate(descriptor, size)  # so that other processes count it


def _beside(path: Path, ending: str) -> Path:
    return path.with_name(path.name + ending)


def _digest(file: LocalFile) -> str:
    digest, at = hashlib.sha256(), 0
    while piece := file.pread(_PIECE, at):
        digest.update(piece)
        at += len(piece)
    return digest.hexdigest()


def _download(descriptor: int, url: Url, version: Version) -> str:
    """Download a shard to an open file; returns its SHA-256."""
    digest, at = hashlib.sha256(), 0
    for piece in Transfer(url, version).chunks(0, version.size):
        digest.update(piece)
        view = memoryview(piece)
        while view:
            written = os.pwrite(descriptor, view, at)
            view, at = view[written:], at + written
    os.fsync(descriptor)  # otherwise a power cut may leave the name without content
    return digest.hexdigest()


@contextmanager
def _locked(path: Path) -> Iterator[int]:
    """Lock a file, waiting if necessary; at the end it is removed unless it was renamed.

    Yields:
        the file's descriptor.
    """
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        with waiting(f"another process that fetches {path.name}"):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        # The previous holder of the lock may have renamed or removed the file.
        if _is_at(descriptor, path):
            break
        os.close(descriptor)
    try:
        yield descriptor
    finally:
        if _is_at(descriptor, path):
            path.unlink(missing_ok=True)
        os.close(descriptor)


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _remove_left_over(path: Path) -> None:
    """Remove a partial download whose process died."""
    descriptor = os.open(path, os.O_RDWR)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if _is_at(descriptor, path):
            path.unlink()
    except BlockingIOError:
        pass
    finally:
        os.close(descriptor)
