"""The packed form of a scan, ``.scan``: cubes of voxels, of which a crop reads only some.

The file is ``MIMSCAN1``, the length of the head (4 bytes, little-endian), the head as JSON, and the
cubes one after the other: cube (i, j, k) holds voxels 32 i ... 32 i + 31 along x and so on, k
running fastest; cubes at the far ends are smaller. Within a cube z runs fastest. The head has
``shape``, ``dtype`` (uint8, int16, float16 or float32), ``spacing`` in mm, ``percentiles`` and
``foreground`` (see :class:`~mimsuite.data.scans.volume.Summary`) and ``crc32`` of each cube, which
is compared whenever the cube is read. Numbers are little-endian, axes RAS+.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np

from mimsuite.data.scans.volume import (
    MOST_VOXELS,
    Spacing,
    Summary,
    Volume,
    check_size,
    check_spacing,
    summary_of,
)
from mimsuite.errors import CorruptSample

MAGIC = b"MIMSCAN1"
DTYPES = ("uint8", "int16", "float16", "float32")
_CUBE = 32
_LONGEST_HEAD = 1 << 24
_START = len(MAGIC) + 4
Read = Callable[[int, int], bytes]  # (size, offset)


def pack(volume: Volume, dtype: str) -> bytes:
    """The packed form; values beyond the type's range are a ``CorruptSample``."""
    values = volume.values
    whole = np.dtype(dtype).kind in "iu"
    limits = np.iinfo(dtype) if whole else np.finfo(dtype)
    if values.max() > limits.max or values.min() < limits.min:
        raise CorruptSample(
            "decode", f"values from {values.min():g} to {values.max():g} do not fit {dtype}"
        )
    if whole and values.dtype.kind == "f":
        values = np.rint(values)
    kind = np.dtype(dtype).newbyteorder("<")
    cubes = [
        np.ascontiguousarray(values[spot], kind).tobytes() for spot in _spots(values.shape, _CUBE)
    ]
    summary = summary_of(values)
    head = json.dumps(
        {
            "shape": values.shape,
            "dtype": dtype,
            "spacing": volume.spacing,
            "cube": _CUBE,
            "percentiles": [float(value) for value in summary.percentiles],
            "foreground": [summary.low, summary.high],
            "crc32": [zlib.crc32(cube) for cube in cubes],
            "stored": volume.stored,
        }
    ).encode()
    return b"".join([MAGIC, struct.pack("<I", len(head)), head, *cubes])


@dataclass(frozen=True)
class Packed:
    """A packed scan that is read in parts.

    Attributes:
        read: (size, offset) -> bytes of the file.
        starts: (cubes + 1,) where each cube begins in the file, and where the last one ends.
        grid: cubes along each axis.
    """

    read: Read
    shape: tuple[int, int, int]
    spacing: Spacing
    dtype: np.dtype
    summary: Summary
    stored: str
    cube: int
    checksums: list[int]
    starts: np.ndarray
    grid: tuple[int, int, int]

    def crop(self, low: Sequence[int], size: Sequence[int]) -> np.ndarray:
        """``size`` voxels from ``low`` on, which lie inside; raises CorruptSample."""
        found = np.empty(tuple(size), self.dtype)
        first = [begin // self.cube for begin in low]
        last = [(begin + length - 1) // self.cube for begin, length in zip(low, size, strict=True)]
        for place in product(*(range(a, b + 1) for a, b in zip(first, last, strict=True))):
            corner = [index * self.cube for index in place]
            cube = self._cube(place, corner)
            source, target = [], []
            for axis in range(3):
                begin = max(corner[axis], low[axis])
                end = min(corner[axis] + cube.shape[axis], low[axis] + size[axis])
                source.append(slice(begin - corner[axis], end - corner[axis]))
                target.append(slice(begin - low[axis], end - low[axis]))
            found[tuple(target)] = cube[tuple(source)]
        return found

    def _cube(self, place: tuple[int, ...], corner: list[int]) -> np.ndarray:
        number = int(np.ravel_multi_index(place, self.grid))
        begin, end = int(self.starts[number]), int(self.starts[number + 1])
        content = self.read(end - begin, begin)
        if len(content) != end - begin:
            raise CorruptSample("truncated", "the packed scan ends too early")
        if zlib.crc32(content) != self.checksums[number]:
            raise CorruptSample("crc", f"cube {place} of the packed scan changed since it was made")
        sides = [min(self.cube, n - at) for n, at in zip(self.shape, corner, strict=True)]
        return np.frombuffer(content, self.dtype).reshape(sides)


def open_packed(read: Read, most_voxels: int = MOST_VOXELS) -> Packed:
    """Read the head of a packed scan; raises CorruptSample."""
    start = read(_START, 0)
    if not start.startswith(MAGIC) or len(start) < _START:
        raise CorruptSample("decode", "no packed scan")
    (length,) = struct.unpack("<I", start[len(MAGIC) :])
    if length > _LONGEST_HEAD:
        raise CorruptSample("too-large", f"a head of {length} bytes")
    try:
        head = json.loads(read(length, _START))
        shape = tuple(int(side) for side in head["shape"])
        low, high = (tuple(int(n) for n in corner) for corner in head["foreground"])
        percentiles = np.array(head["percentiles"], np.float32)
        cube, checksums = int(head["cube"]), [int(number) for number in head["crc32"]]
        if head["dtype"] not in DTYPES or len(shape) != 3 or percentiles.shape != (201,):
            raise ValueError(head["dtype"])
        if cube < 1 or len(low) != 3 or len(high) != 3:
            raise ValueError(cube)
    except (ValueError, KeyError, TypeError) as fault:
        raise CorruptSample("decode", f"the head of the packed scan is damaged ({fault})") from None
    check_size(shape, most_voxels)
    dtype = np.dtype(head["dtype"]).newbyteorder("<")
    grid = (-(-shape[0] // cube), -(-shape[1] // cube), -(-shape[2] // cube))
    inside = all(0 <= a < b <= side for a, b, side in zip(low, high, shape, strict=True))
    if len(checksums) != grid[0] * grid[1] * grid[2] or not inside:
        raise CorruptSample("decode", "the head of the packed scan does not fit its shape")
    sizes = [
        dtype.itemsize * int(np.prod([part.stop - part.start for part in spot]))
        for spot in _spots(shape, cube)
    ]
    return Packed(
        read=read,
        shape=(shape[0], shape[1], shape[2]),
        spacing=check_spacing(head["spacing"]),
        dtype=dtype,
        summary=Summary(percentiles, (low[0], low[1], low[2]), (high[0], high[1], high[2])),
        stored=str(head.get("stored", "")),
        cube=cube,
        checksums=checksums,
        starts=np.cumsum([_START + length, *sizes]),
        grid=grid,
    )


def _spots(shape: Sequence[int], cube: int) -> Iterator[tuple[slice, ...]]:
    """The voxels of each cube, in the order of the file."""
    axes = [[slice(at, min(at + cube, side)) for at in range(0, side, cube)] for side in shape]
    return product(*axes)
