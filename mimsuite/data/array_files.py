"""numpy files; a header is checked against the file's size before it is trusted."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Collection

import numpy as np

from mimsuite.errors import CorruptSample

NPY_MAGIC = b"\x93NUMPY"
ZIP_MAGIC = b"PK\x03\x04"
_MOST_MEMBERS = 64  # arrays in a .npz file


def read_npy(data: bytes, kinds: Collection[str], most_bytes: int) -> np.ndarray:
    """The array of a ``.npy`` file, never unpickled.

    Args:
        kinds: accepted letters of ``dtype.kind``: ``f`` float, ``u`` unsigned ...
        most_bytes: largest size of the array.

    Raises:
        CorruptSample: kind ``too-large`` or ``decode``.
    """
    shape, dtype, start = npy_header(data)
    if dtype.kind not in kinds or dtype.hasobject:
        raise CorruptSample("decode", f"an array of {dtype} is not read")
    expected = dtype.itemsize
    for length in shape:
        expected *= length
    if expected > most_bytes:
        raise CorruptSample("too-large", f"an array {shape} of {dtype} is too large")
    if expected != len(data) - start:
        raise CorruptSample(
            "decode", f"the header claims {expected} bytes of data, there are {len(data) - start}"
        )
    array: np.ndarray = np.load(io.BytesIO(data), allow_pickle=False)
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def npy_header(data: bytes) -> tuple[tuple[int, ...], np.dtype, int]:
    """Shape, dtype, and the offset of the data in bytes."""
    stream = io.BytesIO(data)
    try:
        version = np.lib.format.read_magic(stream)
        read = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }[version]
        shape, _, dtype = read(stream)
    except Exception as fault:  # numpy raises many types on a damaged header
        raise CorruptSample("decode", f"no .npy array ({type(fault).__name__})") from None
    return shape, dtype, stream.tell()


def npz_names(data: bytes) -> list[str]:
    """Names of the arrays of a ``.npz`` file, without their ``.npy``."""
    with _archive(data) as archive:
        return [member.filename.removesuffix(".npy") for member in _members(archive)]


def read_npz(data: bytes, kinds: Collection[str], most_bytes: int) -> dict[str, np.ndarray]:
    """All arrays of a ``.npz`` file, never unpickled.

    Args:
        most_bytes: largest size of all arrays together; the sizes in the archive's directory are
            checked before anything is unpacked.

    Raises:
        CorruptSample: kind ``too-large`` or ``decode``.
    """
    with _archive(data) as archive:
        members = _members(archive)
        if sum(member.file_size for member in members) > most_bytes:
            raise CorruptSample("too-large", f"it unpacks to more than {most_bytes} bytes")
        arrays = {}
        for member in members:
            try:
                unpacked = archive.read(member)  # zipfile stops at the declared size
            except Exception as fault:  # zipfile raises many types on damaged data
                raise CorruptSample("decode", f"'{member.filename}': {fault}") from None
            arrays[member.filename.removesuffix(".npy")] = read_npy(unpacked, kinds, most_bytes)
    return arrays


def _archive(data: bytes) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(io.BytesIO(data))
    except Exception as fault:  # zipfile raises many types on damaged data
        raise CorruptSample("decode", f"no .npz file ({fault})") from None


def _members(archive: zipfile.ZipFile) -> list[zipfile.ZipInfo]:
    members = archive.infolist()
    names = [member.filename for member in members]
    if len(members) > _MOST_MEMBERS:
        raise CorruptSample("too-large", f"{len(members)} arrays are too many")
    if len(set(names)) < len(names) or not all(name.endswith(".npy") for name in names):
        raise CorruptSample("decode", "no .npz file: the archive holds other files")
    return members
