"""Video containers: recognition by the first bytes, and detection of truncated files.

FFmpeg silently reads what is left of a truncated file, so the file size is compared with the sizes
in the container. MPEG streams contain no size: they may start and end anywhere.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import BinaryIO, NamedTuple

from mimsuite.data.local_file import Stored, opened
from mimsuite.errors import CorruptSample

EXTENSIONS = ("mp4", "webm", "mkv", "avi", "mov", "m4v", "3gp", "3g2", "ts", "m2ts", "mts",
              "wmv", "asf", "flv", "f4v", "mpg", "mpeg", "vob", "ogv")  # fmt: skip

_EBML, _SEGMENT = b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67"
_MP4_BOXES = (b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide")
_ASF = bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c")
_ASF_PROPERTIES = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")
_HEAD = 1 << 16


class Container(NamedTuple):
    """A container: its extension, and the name of FFmpeg's demuxer."""

    extension: str
    demuxer: str

    @property
    def indexed(self) -> bool:
        """Whether seeking finds exactly the requested frame."""
        return self.demuxer not in ("mpegts", "mpeg", "asf")


def container_of(data: Stored) -> Container:
    """The container of a whole video file.

    Raises:
        CorruptSample: kind ``decode``: unknown container; ``truncated``: the end is missing.
    """
    with opened(data) as file:
        head = file.read(_HEAD)
        total = file.seek(0, os.SEEK_END)
        found, end_of = _recognise(head)
        end = end_of(file, head, total)
    if end > total:
        raise CorruptSample("truncated", f"{total} of {end} bytes are there")
    return found


End = Callable[[BinaryIO, bytes, int], int]  # (file, head, size) -> expected end


def _recognise(head: bytes) -> tuple[Container, End]:
    """The container by the first bytes, and the function for its expected end."""
    if head[4:8] in _MP4_BOXES:
        brand = head[8:12]
        extension = "mov" if brand == b"qt  " else "3gp" if brand[:2] == b"3g" else "mp4"
        return Container(extension, "mov"), _end_of_boxes
    if head[:4] == _EBML:
        return Container("webm" if b"webm" in head[:64] else "mkv", "matroska"), _end_of_segment
    if head[:4] == b"RIFF" and head[8:12] == b"AVI ":
        return Container("avi", "avi"), _end_of_riff
    if head[:16] == _ASF:
        return Container("wmv", "asf"), _end_of_asf
    if head[:4] == b"FLV\x01":
        return Container("flv", "flv"), _end_of_tags
    if head[:4] == b"OggS":
        return Container("ogv", "ogg"), _end_of_pages
    if head[:4] == b"\0\0\1\xba":
        return Container("mpg", "mpeg"), _anywhere
    if _packets(head, 188, 0):
        return Container("ts", "mpegts"), _anywhere
    if _packets(head, 192, 4):
        return Container("m2ts", "mpegts"), _anywhere
    raise CorruptSample("decode", f"no video file; known are {', '.join(EXTENSIONS)}")


def _packets(head: bytes, size: int, first: int) -> bool:
    """Whether it is an MPEG transport stream with packets of ``size`` bytes, at least four."""
    marks = head[first::size]
    return len(marks) >= 4 and not marks.strip(b"\x47")


def _anywhere(file: BinaryIO, head: bytes, total: int) -> int:
    return total


def _end_of_riff(file: BinaryIO, head: bytes, total: int) -> int:
    return 8 + int.from_bytes(head[4:8], "little")


def boxes(file: BinaryIO, start: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """The boxes of an mp4 file between two offsets: type, start of content, end.

    If the last box ends after ``end``, the file is truncated.

    Raises:
        CorruptSample: kind ``decode``: a box that is smaller than its own header.
    """
    while start + 8 <= end:
        header = _at(file, start, 16)
        size, content = int.from_bytes(header[:4], "big"), 8
        if size == 1:  # a 64-bit size follows
            size, content = int.from_bytes(header[8:], "big"), 16
        elif size == 0:  # up to the end of the file
            size = end - start
        if size < content:
            raise CorruptSample("decode", f"a box of {size} bytes at byte {start}")
        yield header[4:8], start + content, start + size
        start += size


def _end_of_boxes(file: BinaryIO, head: bytes, total: int) -> int:
    """The end of the last box of an mp4 file."""
    return max((end for _, _, end in boxes(file, 0, total)), default=0)


def _end_of_segment(file: BinaryIO, head: bytes, total: int) -> int:
    """The end of a Matroska file's segment; the end of the file if its size is unknown."""
    length, at = _ebml_number(head, 4)
    at += length
    if head[at : at + 4] != _SEGMENT:
        return total
    length, at = _ebml_number(head, at + 4)
    unknown = length == (1 << (length.bit_length())) - 1 and length.bit_length() % 7 == 0
    return total if unknown else at + length


def _ebml_number(data: bytes, at: int) -> tuple[int, int]:
    """A number of 1 to 8 bytes (leading zero bits of the first give the length), and its end."""
    first = data[at] if at < len(data) else 0
    if not first:
        raise CorruptSample("decode", "a damaged Matroska header")
    count = 9 - first.bit_length()
    value = int.from_bytes(data[at : at + count], "big") & ((1 << (7 * count)) - 1)
    return value, at + count


def _end_of_asf(file: BinaryIO, head: bytes, total: int) -> int:
    """The size in the file properties, which is meaningless for a broadcast."""
    at = head.find(_ASF_PROPERTIES)
    fields = head[at + 24 : at + 92] if at >= 0 else b""
    if len(fields) < 68 or fields[64] & 1:
        return total
    return int.from_bytes(fields[16:24], "little")


def _end_of_tags(file: BinaryIO, head: bytes, total: int) -> int:
    """The end of an FLV file, whose tags are each followed by their size."""
    size = int.from_bytes(_at(file, max(0, total - 4), 4), "big")
    tag = _at(file, total - 4 - size, 4) if 11 <= size <= total - 4 else b""
    whole = tag[:1] in (b"\x08", b"\x09", b"\x12") and int.from_bytes(tag[1:], "big") == size - 11
    return total if whole else total + 1


def _end_of_pages(file: BinaryIO, head: bytes, total: int) -> int:
    """The end of the last page of an Ogg file."""
    longest = 27 + 255 + 255 * 255
    first = max(0, total - longest)
    tail = _at(file, first, longest)
    at = tail.rfind(b"OggS")
    if at < 0:
        return total + 1
    segments = tail[at + 27 : at + 27 + tail[at + 26]] if at + 26 < len(tail) else b""
    return first + at + 27 + len(segments) + sum(segments)


def _at(file: BinaryIO, start: int, count: int) -> bytes:
    file.seek(start)
    return file.read(count)
