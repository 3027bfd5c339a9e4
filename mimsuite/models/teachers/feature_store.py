"""Tensors of samples on disk: one small file per sample, written atomically, with a checksum.

Several processes may read and write the same folder.
"""

from __future__ import annotations

import hashlib
import logging
import os
import tempfile
from pathlib import Path

import safetensors
import safetensors.torch
from torch import Tensor

from mimsuite.errors import UserError

_SUM = 32  # bytes of the SHA-256 at the start of a file
_log = logging.getLogger(__name__)


class FeatureStore:
    """A folder of features, with a subfolder for each group of samples.

    Args:
        folder: created if needed; it should hold nothing else.
        gib: size limit of the folder in GiB; features beyond it are not stored.
        key: recipe key that names the folder, for messages.

    Raises:
        UserError: the folder is not writable.
    """

    def __init__(self, folder: Path, gib: float, key: str) -> None:
        self.folder, self.limit, self.key = folder, gib * 2**30, key
        self._closed = False  # set when no more features can be stored
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                pass
        except OSError as fault:
            raise UserError(
                f"{key}={folder}: {fault.strerror or fault}: name a folder that can be written"
            ) from None
        files = [path.stat() for path in folder.rglob("*") if path.is_file()]
        self.bytes = sum(status.st_size for status in files)

    def read(self, group: str, sample: str) -> dict[str, Tensor] | None:
        """Stored tensors of a sample; ``None`` if there are none. Removes a damaged file."""
        path = self._path(group, sample)
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            return None
        body = content[_SUM:]
        try:
            if hashlib.sha256(body).digest() == content[:_SUM]:
                return safetensors.torch.load(body)
        except safetensors.SafetensorError:
            pass
        _log.warning("cached features %s are damaged: they are computed again", path)
        path.unlink(missing_ok=True)
        return None

    def write(self, group: str, sample: str, tensors: dict[str, Tensor]) -> None:
        """Store the CPU tensors of a sample if there is room."""
        body = safetensors.torch.save({name: t.contiguous() for name, t in tensors.items()})
        if self._closed:
            return
        if self.bytes + _SUM + len(body) > self.limit:
            self._close(f"is full ({self.limit / 2**30:g} GiB by {self.key}_gib)")
            return
        path = self._path(group, sample)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            _replace(path, hashlib.sha256(body).digest() + body)
        except OSError as fault:
            self._close(f"cannot be written ({fault.strerror or fault})")
            return
        self.bytes += _SUM + len(body)

    def _close(self, reason: str) -> None:
        self._closed = True
        _log.warning(
            "%s=%s %s: features of further samples are computed each time",
            *(self.key, self.folder, reason),
        )

    def _path(self, group: str, sample: str) -> Path:
        name = hashlib.sha256(sample.encode("utf-8", "surrogatepass")).hexdigest()
        return self.folder / group / name[:2] / name[2:]


def _replace(path: Path, content: bytes) -> None:
    """Write a file atomically.

    The data is not flushed to disk, as each flush would wait; after a power cut the checksum of a
    half-written file does not match.
    """
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=".")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
