"""PLY, PCD, STL and GLB files, read by Open3D.

For a truncated file Open3D returns zeros or uninitialised memory. The header's counts are therefore
compared with the file size before reading, and with the result after.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from mimsuite.data.points.cloud_rows import MOST_POINTS
from mimsuite.data.points.meshes import MOST_CORNERS, Mesh, check_mesh
from mimsuite.data.unused import notice
from mimsuite.errors import CorruptSample, UserError

_LONGEST_HEADER = 1 << 16
_USED = {
    *("x", "y", "z", "nx", "ny", "nz", "normal_x", "normal_y", "normal_z"),
    *("red", "green", "blue", "rgb", "rgba", "_"),
}
_BYTES = {
    **dict.fromkeys(("char", "uchar", "int8", "uint8"), 1),
    **dict.fromkeys(("short", "ushort", "int16", "uint16"), 2),
    **dict.fromkeys(("int", "uint", "int32", "uint32", "float", "float32"), 4),
    **dict.fromkeys(("double", "float64", "int64", "uint64"), 8),
}


def open3d() -> Any:
    """The library with its log silenced; importing it takes seconds.

    Raises:
        UserError: Open3D, or a system library that it needs, is not installed.
    """
    try:
        import open3d
    except (ImportError, OSError) as fault:
        raise UserError(
            f"this needs Open3D ({' '.join(str(fault).split())[:120]}): install it with "
            "`pip install 'mimsuite[points]'`, on Debian also libegl1, libgl1 and libusb-1.0-0"
        ) from None
    open3d.utility.set_verbosity_level(open3d.utility.VerbosityLevel.Error)
    return open3d


def read_ply(data: bytes) -> Mesh | dict[str, np.ndarray]:
    """Read a PLY file: a mesh if it has faces, else columns (N, 3) points, normals, colors.

    Raises:
        CorruptSample: kind ``decode``, ``truncated`` or ``too-large``.
    """
    counts = _ply_counts(data)
    if counts.get("face"):
        return _mesh(data, ".ply", counts["vertex"], counts["face"])
    return _cloud(data, ".ply", counts.get("vertex", 0))


def read_pcd(data: bytes) -> dict[str, np.ndarray]:
    """Read a PCD file: columns (N, 3) points, optionally normals and colors; raises as above."""
    header, body = _pcd_header(data)
    try:
        count = int(header.get("POINTS", header.get("WIDTH", "0")))
        columns = sum(int(n) for n in header["COUNT"].split()) if "COUNT" in header else 3
    except ValueError:
        raise CorruptSample("decode", "a damaged PCD header") from None
    _limit(count, MOST_POINTS)
    _notice_other("fields of PCD points", header.get("FIELDS", "").split())
    if header["DATA"] == "ascii" and (have := len(body.split())) < count * columns:
        raise CorruptSample("truncated", f"{have} of {count * columns} numbers are there")
    return _cloud(data, ".pcd", count)


def read_stl(data: bytes) -> Mesh:
    """Read an STL file, binary or text; raises as :func:`read_ply`."""
    if is_text_stl(data):
        if b"endsolid" not in data[-256:]:
            raise CorruptSample("truncated", "no 'endsolid' at the end of the file")
        return _mesh(data, ".stl", 0, data.count(b"endfacet"))
    count = int.from_bytes(data[80:84], "little")
    if len(data) < 84 + 50 * count:
        raise CorruptSample("truncated", f"{len(data)} of {84 + 50 * count} bytes are there")
    return _mesh(data, ".stl", 0, count)


def read_glb(data: bytes) -> Mesh:
    """Read a binary glTF file: all meshes, placed as in its scene; raises as above."""
    claimed = int.from_bytes(data[8:12], "little")
    if len(data) < claimed:
        raise CorruptSample("truncated", f"{len(data)} of {claimed} bytes are there")
    library = open3d()
    with _file(data, ".glb") as path:
        found = library.io.read_triangle_mesh(str(path))
    mesh = Mesh(np.asarray(found.vertices), np.asarray(found.triangles).astype(np.int64))
    _limit(3 * len(mesh.triangles), MOST_CORNERS)
    if not len(mesh.triangles):
        raise CorruptSample("decode", "no triangles can be read")
    return check_mesh(mesh)


def is_text_stl(data: bytes) -> bool:
    """Whether the file is text STL; binary files may also begin with ``solid``."""
    return data.lstrip()[:5] == b"solid" and b"facet" in data[:_LONGEST_HEADER]


def _mesh(data: bytes, suffix: str, vertices: int, faces: int) -> Mesh:
    _limit(3 * faces, MOST_CORNERS)
    library = open3d()
    with _file(data, suffix) as path:
        found = library.io.read_triangle_mesh(str(path))
    mesh = Mesh(np.asarray(found.vertices), np.asarray(found.triangles).astype(np.int64))
    if not faces or len(mesh.triangles) < faces or len(mesh.vertices) < vertices:
        raise CorruptSample("decode", f"{len(mesh.triangles)} of {faces} faces can be read")
    return check_mesh(mesh)


def _cloud(data: bytes, suffix: str, count: int) -> dict[str, np.ndarray]:
    library = open3d()
    with _file(data, suffix) as path:
        # We drop invalid rows later ourselves, after comparing the count with the header's.
        found = library.io.read_point_cloud(
            str(path), remove_nan_points=False, remove_infinite_points=False
        )
    columns = {name: np.asarray(getattr(found, name)) for name in ("points", "normals", "colors")}
    if not count or len(columns["points"]) != count:
        raise CorruptSample("decode", f"{len(columns['points'])} of {count} points can be read")
    return {name: values for name, values in columns.items() if len(values) == count}


class _file:  # noqa: N801 - reads as a function
    """The bytes as a temporary file with the format's extension: Open3D reads only files."""

    def __init__(self, data: bytes, suffix: str) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="mimsuite-")
        self._path = Path(self._folder.name) / f"sample{suffix}"
        self._path.write_bytes(data)

    def __enter__(self) -> Path:
        return self._path

    def __exit__(self, *_: object) -> None:
        self._folder.cleanup()


def _ply_counts(data: bytes) -> dict[str, int]:
    """Rows per element; checks that the file is long enough for them."""
    end = data.find(b"end_header", 0, _LONGEST_HEADER)
    if end < 0:
        raise CorruptSample("decode", "no end of the PLY header")
    body = data.find(b"\n", end) + 1
    counts: dict[str, int] = {}
    shortest: dict[str, int] = {}  # bytes per row, if its lists are empty
    words_of: dict[str, int] = {}
    names: list[tuple[str, str]] = []
    text, element = True, ""
    try:
        for line in data[:end].splitlines():
            words = line.decode("latin-1").split()
            if words[:1] == ["format"]:
                text = words[1] == "ascii"
            elif words[:1] == ["element"]:
                element, counts[words[1]] = words[1], int(words[2])
                shortest[element] = words_of[element] = 0
            elif words[:1] == ["property"]:
                names.append((element, words[-1]))
                shortest[element] += _BYTES[words[2 if words[1] == "list" else 1]]
                words_of[element] += 1
    except (ValueError, KeyError, IndexError):
        raise CorruptSample("decode", "a damaged PLY header") from None
    if min(counts.values(), default=0) < 0:
        raise CorruptSample("decode", "a damaged PLY header")
    _limit(max(counts.values(), default=0), MOST_POINTS)
    if text:
        have, need = len(data[body:].split()), sum(counts[name] * words_of[name] for name in counts)
    else:
        have, need = len(data) - body, sum(counts[name] * shortest[name] for name in counts)
    if have < need:
        raise CorruptSample(
            "truncated", f"{have} of {need} {'numbers' if text else 'bytes'} are there"
        )
    _notice_other("properties of PLY points", [name for of, name in names if of == "vertex"])
    return counts


def _notice_other(what: str, names: list[str]) -> None:
    """Report columns other than coordinates, normals and colours as unused."""
    if other := [name for name in names if name.lower() not in _USED]:
        notice(f"{what}: {', '.join(other)}")


def _pcd_header(data: bytes) -> tuple[dict[str, str], bytes]:
    """Fields of the header, and the bytes after it."""
    fields: dict[str, str] = {}
    at = 0
    while at < min(len(data), _LONGEST_HEADER):
        end = data.find(b"\n", at)
        end = len(data) if end < 0 else end
        name, _, value = data[at:end].decode("latin-1").strip().partition(" ")
        at = end + 1
        fields[name] = value.strip()
        if name == "DATA":
            return fields, data[at:]
    raise CorruptSample("decode", "no end of the PCD header")


def _limit(count: int, most: int) -> None:
    if count > most:
        raise CorruptSample("too-large", f"the header claims {count} rows or corners")
