"""The kind of a weights file, detected by its first bytes, as suffixes are not reliable."""

from __future__ import annotations

import struct
from enum import Enum
from pathlib import Path

from mimsuite.errors import UserError

_HEAD = 512  # bytes read for detection


class Kind(Enum):
    """Containers of weights."""

    SAFETENSORS = "safetensors"
    ZIP = "zip"  # torch.save since torch 1.6
    PICKLE = "pickle"  # torch.save before torch 1.6


# Files that are given by mistake. A failed download often leaves an HTML page.
_OTHERS: tuple[tuple[bytes, str], ...] = (
    (b"\x89PNG", "a PNG image"),
    (b"\xff\xd8\xff", "a JPEG image"),
    (b"\x89HDF", "an HDF5 file"),
    (b"\x93NUMPY", "a NumPy array"),
    (b"\x1f\x8b", "a gzip archive: unpack it first"),
    (b"\xfd7zXZ", "an xz archive: unpack it first"),
    (b"<!doctype html", "a web page: the download failed"),
    (b"<html", "a web page: the download failed"),
    (b"version https://git-lfs", "a Git LFS pointer: fetch the file itself with git lfs pull"),
)


def sniff(path: Path) -> Kind:
    """The container of a weights file.

    Raises:
        UserError: it cannot be read, or is another kind of file, which the message names.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            head = file.read(_HEAD)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None
    if head.startswith(b"PK\x03\x04"):
        return Kind.ZIP
    if _is_safetensors(head, size, path.suffix):
        return Kind.SAFETENSORS
    if head[:1] == b"\x80" and head[1:2] in b"\x02\x03\x04\x05":
        return Kind.PICKLE
    raise UserError(
        f"{path} is not a run, checkpoint or known weights file: found {_what(head, size)}"
    )


def _is_safetensors(head: bytes, size: int, suffix: str) -> bool:
    """Whether a header length and an opening brace are there; a truncated file needs the suffix."""
    if len(head) < 9 or head[8:9] != b"{":
        return False
    (length,) = struct.unpack("<Q", head[:8])
    return bool(length + 8 <= size) or suffix == ".safetensors"


def _what(head: bytes, size: int) -> str:
    if size == 0:
        return "an empty file"
    if head[257:262] == b"ustar":
        return "a tar archive"
    start = head.lstrip().lower()
    for magic, name in _OTHERS:
        if head.startswith(magic) or start.startswith(magic.lower()):
            return name
    try:
        head.decode("utf-8")
    except UnicodeDecodeError as error:
        # The end of the bytes read may split a character.
        if error.start < len(head) - 3:
            return "binary data of an unknown kind"
    return "a text file"
