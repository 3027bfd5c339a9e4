"""Meshes from OBJ and OFF files, with polygons of any number of corners.

Open3D reads the other formats. Its OBJ reader drops faces with more than three corners or kills the
process; its OFF reader accepts truncated files.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from mimsuite.errors import CorruptSample

MOST_CORNERS = 50_000_000  # limit of corners of all triangles of a mesh
_OFF = re.compile(rb"(C|N|CN)?OFF(?=\d|$)")
_LONGEST_COMMENT = 1 << 16


@dataclass(frozen=True)
class Mesh:
    """A triangle mesh.

    Attributes:
        vertices: (V, 3) float64.
        triangles: (F, 3) int64, indices into ``vertices``.
    """

    vertices: np.ndarray
    triangles: np.ndarray


Found = Mesh | dict[str, np.ndarray]  # a mesh, or ``points`` (V, 3) if there are no faces


def read_obj(data: bytes) -> Found:
    """Read the ``v`` and ``f`` lines of an OBJ file; polygons become triangle fans.

    Raises:
        CorruptSample: kind ``decode`` or ``too-large``.
    """
    vertices: list[list[float]] = []
    triangles: list[tuple[int, int, int]] = []
    for number, line in enumerate(_joined_lines(data), start=1):
        words = line.split()
        try:
            if words and words[0] == b"v":
                x, y, z = words[1:4]
                vertices.append([float(x), float(y), float(z)])
            elif words and words[0] == b"f":
                corners = [_obj_index(word, len(vertices)) for word in words[1:]]
                triangles += _fan(corners)
        except ValueError:
            raise CorruptSample("decode", f"line {number} of the OBJ file is damaged") from None
    return _checked(vertices, triangles)


def is_off(data: bytes) -> bool:
    """Whether the first word after comments is ``OFF`` or a variant of it."""
    for line in data[:_LONGEST_COMMENT].splitlines():
        if words := line.split(b"#")[0].split():
            return bool(_OFF.match(words[0]))
    return False


def read_off(data: bytes) -> Found:
    """Read an OFF file. The counts may follow ``OFF`` without a space, as in ModelNet, and the
    whole file may be one line.

    Raises:
        CorruptSample: kind ``decode``, ``truncated`` or ``too-large``.
    """
    lines = [line.split(b"#")[0].split() for line in data.splitlines()]
    rows = [row for row in lines if row]
    match = _OFF.match(rows[0][0]) if rows else None
    if not match:
        raise CorruptSample("decode", "no OFF file")
    rest = rows[0][0][match.end() :]
    rows[0] = [rest, *rows[0][1:]] if rest else rows[0][1:]
    rows = [row for row in rows if row]
    try:
        vertex_count, face_count = int(rows[0][0]), int(rows[0][1])
        if min(vertex_count, face_count) < 0:
            raise ValueError
        if 1 + vertex_count + face_count > len(rows):
            rows = _rows_of_one_line(rows, vertex_count, face_count)
        vertices = [[float(word) for word in row[:3]] for row in rows[1 : 1 + vertex_count]]
        triangles: list[tuple[int, int, int]] = []
        for row in rows[1 + vertex_count : 1 + vertex_count + face_count]:
            corners = [int(word) for word in row[1 : 1 + int(row[0])]]
            if len(corners) != int(row[0]):
                raise ValueError
            triangles += _fan(corners)
    except (ValueError, IndexError):
        raise CorruptSample("decode", "a row of the OFF file is damaged") from None
    return _checked(vertices, triangles)


def _rows_of_one_line(rows: list[list[bytes]], vertices: int, faces: int) -> list[list[bytes]]:
    """Regroup the numbers of a plain OFF file with arbitrary line breaks into one row per item."""
    words = [word for row in rows for word in row]
    found, at = [words[:3]], 3
    for number in range(vertices + faces):
        if at >= len(words):
            raise CorruptSample("truncated", f"{number} of {vertices + faces} rows are there")
        length = 3 if number < vertices else 1 + int(words[at])
        found.append(words[at : at + length])
        at += max(length, 1)
    if at != len(words):
        raise CorruptSample("truncated", f"{len(words)} of {at} numbers are there")
    return found


def sample_surface(mesh: Mesh, count: int, seed: int, *, normals: bool = False) -> np.ndarray:
    """(count, 3) float64 points, uniform by area; (count, 6) with the normals of their triangles.

    Args:
        seed: 31 bits; the same seed gives the same points.

    Raises:
        UserError: Open3D is not installed.
    """
    from mimsuite.data.points.open3d_files import open3d

    library = open3d()
    surface = library.geometry.TriangleMesh(
        library.utility.Vector3dVector(mesh.vertices),
        library.utility.Vector3iVector(mesh.triangles.astype(np.int32)),
    )
    if not surface.get_surface_area() > 0:
        raise CorruptSample("decode", "a mesh without area")
    library.utility.random.seed(seed)
    cloud = surface.sample_points_uniformly(count, use_triangle_normal=normals)
    columns = [np.asarray(cloud.points)] + ([np.asarray(cloud.normals)] if normals else [])
    return np.concatenate(columns, axis=1)


def _joined_lines(data: bytes) -> list[bytes]:
    """Lines; a line that ends in a backslash is joined to the next."""
    return data.replace(b"\\\r\n", b" ").replace(b"\\\n", b" ").splitlines()


def _obj_index(word: bytes, known: int) -> int:
    """``7/2/3`` -> 6; negative numbers count back from the last vertex."""
    index = int(word.split(b"/", 1)[0])
    if index == 0:
        raise ValueError("vertices count from 1")
    return index - 1 if index > 0 else known + index


def _fan(corners: list[int]) -> list[tuple[int, int, int]]:
    if len(corners) < 3:
        raise ValueError("a face has three corners or more")
    return [(corners[0], second, third) for second, third in pairwise(corners[1:])]


def _checked(vertices: list[list[float]], triangles: list[tuple[int, int, int]]) -> Found:
    if 3 * len(triangles) > MOST_CORNERS:
        raise CorruptSample("too-large", f"{len(triangles)} triangles")
    try:
        points = np.array(vertices, np.float64).reshape(-1, 3)
        corners = np.array(triangles, np.int64)
    except (ValueError, OverflowError):
        raise CorruptSample("decode", "a vertex without three coordinates") from None
    return check_mesh(Mesh(points, corners)) if triangles else {"points": points}


def check_mesh(mesh: Mesh) -> Mesh:
    """The mesh, checked: triangles refer to existing vertices and all vertices are finite.

    Raises:
        CorruptSample: kind ``decode``.
    """
    if mesh.triangles.min() < 0 or mesh.triangles.max() >= len(mesh.vertices):
        raise CorruptSample("decode", "a face names a vertex that is not there")
    if not np.isfinite(mesh.vertices[np.unique(mesh.triangles)]).all():
        raise CorruptSample("decode", "a vertex that is not finite")
    return mesh
