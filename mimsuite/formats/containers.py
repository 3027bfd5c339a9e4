"""Video containers: which one it is, by its first bytes, and whether the file ends too early.

FFmpeg shows what is left of a file that was cut off; the sizes that containers state tell.
"""

from __future__ import annotations

from typing import NamedTuple

from mimsuite.errors import CorruptSample

EXTENSIONS = ("mp4", "m4v", "mov", "webm", "mkv", "avi")

_EBML, _SEGMENT = b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67"
_MP4_BOXES = (b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide")


class Container(NamedTuple):
    """A container: its extension, and FFmpeg's name of what reads it."""

    extension: str
    demuxer: str


def container_of(data: bytes) -> Container:
    """The container of a whole video file.

    Raises:
        CorruptSample: kind ``decode``: none that is known; ``truncated``: its end is missing.
    """
    if data[4:8] in _MP4_BOXES:
        _need(data, _end_of_boxes(data))
        return Container("mov" if data[8:12] == b"qt  " else "mp4", "mov")
    if data[:4] == _EBML:
        _need(data, _end_of_segment(data))
        return Container("webm" if b"webm" in data[:64] else "mkv", "matroska")
    if data[:4] == b"RIFF" and data[8:12] == b"AVI ":
        _need(data, 8 + int.from_bytes(data[4:8], "little"))
        return Container("avi", "avi")
    raise CorruptSample("decode", f"no video file; known are {', '.join(EXTENSIONS)}")


def _need(data: bytes, end: int) -> None:
    if end > len(data):
        raise CorruptSample("truncated", f"{len(data)} of {end} bytes are there")


def _end_of_boxes(data: bytes) -> int:
    """Where the last box of an mp4 file ends."""
    at = 0
    while at + 8 <= len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        if size == 1:  # a 64-bit size follows
            size = int.from_bytes(data[at + 8 : at + 16], "big")
        elif size == 0:  # up to the end of the file
            return len(data)
        if size < 8:
            raise CorruptSample("decode", f"a box of {size} bytes at byte {at}")
        at += size
    return at


def _end_of_segment(data: bytes) -> int:
    """Where the segment of a Matroska file ends; the end of the file where it does not say."""
    length, at = _ebml_number(data, 4)
    at += length
    if data[at : at + 4] != _SEGMENT:
        return len(data)
    length, at = _ebml_number(data, at + 4)
    unknown = length == (1 << (length.bit_length())) - 1 and length.bit_length() % 7 == 0
    return len(data) if unknown else at + length


def _ebml_number(data: bytes, at: int) -> tuple[int, int]:
    """A number of 1 to 8 bytes, the leading zeros of the first telling how many; and its end."""
    first = data[at] if at < len(data) else 0
    if not first:
        raise CorruptSample("decode", "a damaged Matroska header")
    count = 9 - first.bit_length()
    value = int.from_bytes(data[at : at + count], "big") & ((1 << (7 * count)) - 1)
    return value, at + count
