"""Detects mp4 files whose track header matrix asks for mirrored frames.

ISO/IEC 14496-12, section 8.3.2. Only PyAV applies the matrix; other readers ignore the mirroring.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import BinaryIO

from mimsuite.data.local_file import Stored, opened
from mimsuite.data.video.containers import boxes

_MATRIX_AT = {0: 40, 1: 52}  # track header version -> byte offset of the matrix


def is_mirrored(data: Stored) -> bool:
    """Whether a track of an mp4 file is shown mirrored.

    Raises:
        CorruptSample: a box that is smaller than its own header.
    """
    with opened(data) as file:
        return any(map(_mirrors, _track_headers(file)))


def _track_headers(file: BinaryIO) -> Iterator[bytes]:
    end = file.seek(0, 2)
    for _, *movie in _named(file, b"moov", 0, end):
        for _, *track in _named(file, b"trak", *movie):
            for _, start, stop in _named(file, b"tkhd", *track):
                file.seek(start)
                yield file.read(stop - start)


def _named(file: BinaryIO, name: bytes, start: int, end: int) -> list[tuple[bytes, int, int]]:
    return [box for box in boxes(file, start, end) if box[0] == name]


def _mirrors(header: bytes) -> bool:
    at = _MATRIX_AT.get(header[0] if header else -1)
    if at is None or len(header) < at + 20:
        return False
    a, b, _, c, d = struct.unpack_from(">5i", header, at)
    return bool(a * d < b * c)
