"""Point cloud files. Shards store ``.npy`` float32 (N, 3), or (N, 6) with normals or colours; one
more column holds part ids.

Clouds are read from ``.npy``, ``.npz``, text (``.xyz``, ``.txt``, ``.pts``, ``.asc``), PLY, PCD,
LAS, and rows of float32 (KITTI), or sampled from the surfaces of OBJ, OFF, STL, PLY and GLB meshes.
The format is recognised by content, not by file name.
"""

from __future__ import annotations

import io

import numpy as np

from mimsuite.data.array_files import NPY_MAGIC, ZIP_MAGIC, read_npy, read_npz
from mimsuite.data.points.cloud_rows import MOST_POINTS, Rows, check_parts, float32_rows
from mimsuite.data.points.float_rows import are_float_rows, read_float_rows
from mimsuite.data.points.las import read_las
from mimsuite.data.points.meshes import Mesh, is_off, read_obj, read_off, sample_surface
from mimsuite.data.points.open3d_files import is_text_stl, read_glb, read_pcd, read_ply, read_stl
from mimsuite.data.points.text_clouds import read_text
from mimsuite.data.unused import notice
from mimsuite.errors import CorruptSample

FEATURES = ("none", "normals", "colors")
DEFAULT_POINTS = 8192  # points sampled from a mesh
_MOST_BYTES = 6 * 8 * MOST_POINTS
_TILE = 128
# Coordinates; coordinates with normals or colours; either with a part id.
_COLUMNS = (3, 6, 4, 7)


def facts(data: bytes) -> dict[str, int | float | str]:
    """Points, columns and dtype; for a mesh its vertices and triangles.

    ``not_finite`` counts dropped points. ``moved`` is the distance by which a cloud was moved to
    the origin, if float32 was too coarse for its coordinates.
    """
    found = _read(data)
    if isinstance(found, Mesh):
        return {"vertices": len(found.vertices), "triangles": len(found.triangles)}
    rows = _rows(found, "none")
    figures: dict[str, int | float | str] = {
        "points": len(rows.table),
        "columns": f"{rows.table.shape[1]} x {rows.table.dtype}",
    }
    if rows.left_out:
        figures["not_finite"] = rows.left_out
    if rows.moved is not None:
        figures["moved"] = round(float(np.linalg.norm(rows.moved)), 3)
    return figures


def store(
    data: bytes, *, points: int | None = None, features: str = "none", seed: int = 0
) -> tuple[str, bytes]:
    """Convert a cloud to ``.npy``.

    Args:
        points: points sampled from larger clouds and from surfaces. None: clouds keep all points,
            surfaces give 8192.
        features: three further columns: ``normals`` or ``colors`` if the file has them;
            ``normals`` for surfaces. Arrays and text always keep their normals or colours.
        seed: seed of the sampling.
    """
    found = _read(data)
    rng = np.random.Generator(np.random.Philox(key=seed))
    if isinstance(found, Mesh):
        if features == "colors":
            raise CorruptSample("decode", "a mesh has no colours to store")
        draw = int(rng.integers(1 << 31))
        cloud = float32_rows(
            sample_surface(found, points or DEFAULT_POINTS, draw, normals=features == "normals")
        ).table
    else:
        cloud = _rows(found, features).table
        if points is not None and points < len(cloud):
            cloud = cloud[np.sort(rng.choice(len(cloud), points, replace=False))]
    stream = io.BytesIO()
    np.save(stream, np.ascontiguousarray(cloud, dtype="<f4"), allow_pickle=False)
    return "npy", stream.getvalue()


def picture(data: bytes) -> np.ndarray:
    """(128, 128, 3) uint8: the cloud seen from a corner, y up; near points are darker."""
    found = _read(data)
    return draw(found.vertices if isinstance(found, Mesh) else _rows(found, "none").table, _TILE)


def read_plain(data: bytes | np.ndarray, most_bytes: int) -> np.ndarray:
    """(N, 3) float32 coordinates, or (N, 4) with part ids, from an array, a ``.npy`` file, text, or
    rows of float32. Needs no optional library.

    Raises:
        CorruptSample: kind ``too-large``, ``truncated`` or ``decode`` (also for other formats).
    """
    found = {"values": data} if isinstance(data, np.ndarray) else _plain(data, most_bytes)
    cloud = _checked(found["values"] if "values" in found else _joined(found, "none"))
    if cloud.shape[1] > 4:
        notice("normals or colours of clouds")
    kept = [0, 1, 2] if cloud.shape[1] % 3 == 0 else [0, 1, 2, -1]
    return _sound(cloud[:, kept]).table


def _plain(data: bytes, most_bytes: int) -> dict[str, np.ndarray]:
    if data.startswith(NPY_MAGIC):
        return {"values": read_npy(data, "f", most_bytes)}
    if len(data) > most_bytes:
        raise CorruptSample("too-large", f"{len(data)} bytes")
    if are_float_rows(data):
        return read_float_rows(data)
    if b"\0" not in data[:4096] and _kind_of_text(data) == "cloud":
        return _text(data)
    raise CorruptSample("decode", "no cloud of plain numbers: convert it with mimsuite data pack")


def draw(cloud: np.ndarray, side: int) -> np.ndarray:
    """(side, side, 3) uint8 scatter plot of (N, 3 or more) points on white."""
    points = cloud[:, :3].astype(np.float64)
    points -= (points.min(axis=0) + points.max(axis=0)) / 2
    points /= max(float(np.linalg.norm(points, axis=1).max()), 1e-12)
    turn, tilt = np.radians(35), np.radians(25)
    x = points[:, 0] * np.cos(turn) - points[:, 2] * np.sin(turn)
    depth = points[:, 0] * np.sin(turn) + points[:, 2] * np.cos(turn)
    y = points[:, 1] * np.cos(tilt) - depth * np.sin(tilt)
    depth = points[:, 1] * np.sin(tilt) + depth * np.cos(tilt)  # towards the viewer
    canvas = np.full((side, side, 3), 255, dtype=np.uint8)
    order = np.argsort(depth)  # draw the nearest last
    near = ((depth[order] + 1) / 2)[:, None]
    colours = ((1 - near) * [176, 205, 230] + near * [16, 52, 110]).astype(np.uint8)
    columns = ((x[order] * 0.48 + 0.5) * (side - 2)).astype(int)
    rows = ((0.5 - y[order] * 0.48) * (side - 2)).astype(int)
    for right, down in ((0, 0), (1, 0), (0, 1), (1, 1)):
        canvas[rows + down, columns + right] = colours
    return canvas


def _read(data: bytes) -> Mesh | dict[str, np.ndarray]:
    """A mesh, or named columns; ``values`` is an unnamed array."""
    if data.startswith(NPY_MAGIC):
        return {"values": read_npy(data, "fiu", _MOST_BYTES)}
    if data.startswith(ZIP_MAGIC):
        return _from_npz(read_npz(data, "fiub", _MOST_BYTES))
    if data.startswith(b"LASF"):
        return read_las(data)
    if data.startswith(b"glTF"):
        return read_glb(data)
    kind = _kind_of_text(data)
    if kind == "ply":
        return read_ply(data)
    if kind == "pcd":
        return read_pcd(data)
    if kind == "off":
        return read_off(data)
    if is_text_stl(data) or _is_binary_stl(data):
        return read_stl(data)
    if are_float_rows(data):
        return read_float_rows(data)
    if b"\0" in data[:4096]:
        raise CorruptSample("decode", "no point cloud or mesh of a known format")
    return read_obj(data) if kind == "obj" else _text(data)


def _kind_of_text(data: bytes) -> str:
    """``ply``, ``pcd``, ``off``, ``obj``, ``stl`` or ``cloud``, by the beginning of a text file."""
    start = data[:256].lstrip()
    if start.startswith(b"ply"):
        return "ply"
    if start.startswith((b"# .PCD", b"VERSION ", b"VERSION\t")):
        return "pcd"
    if is_off(data):
        return "off"
    if is_text_stl(data):
        return "stl"
    if any(line.startswith((b"v ", b"v\t")) for line in data.splitlines()):
        return "obj"
    return "cloud"


def _is_binary_stl(data: bytes) -> bool:
    # Binary STL has no magic number, so the size must match; a truncated file is not recognised.
    return len(data) > 84 and len(data) == 84 + 50 * int.from_bytes(data[80:84], "little")


def _from_npz(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    if "points" in arrays:
        named = {"points", "normals", "colors"} & set(arrays)
        return {name: arrays[name] for name in named}
    tables = [values for values in arrays.values() if values.ndim == 2]
    if len(tables) != 1:
        raise CorruptSample("decode", f"no array 'points' in it; it has {', '.join(arrays)[:80]}")
    return {"values": tables[0]}


def _rows(found: dict[str, np.ndarray], features: str) -> Rows:
    """(N, 3) or (N, 6) finite float32, or one more column with part ids.

    Args:
        features: as in :func:`store`.

    Raises:
        CorruptSample: kind ``decode`` or ``too-large``.
    """
    return _sound(_checked(found["values"] if "values" in found else _joined(found, features)))


def _checked(cloud: np.ndarray) -> np.ndarray:
    if cloud.ndim != 2 or cloud.shape[1] not in _COLUMNS or not len(cloud):
        raise CorruptSample(
            "decode",
            f"an array of shape {cloud.shape}; a cloud is (N, 3) or (N, 6), or one column more",
        )
    return cloud


def _sound(cloud: np.ndarray) -> Rows:
    rows = float32_rows(cloud)
    if cloud.shape[1] % 3:
        check_parts(rows.table[:, -1])
    return rows


def _text(data: bytes) -> dict[str, np.ndarray]:
    """Columns of a text file; ``unasked`` holds its normals, or else its colours."""
    found = read_text(data)
    kept = [found[name] for name in ("normals", "colors") if name in found]
    return found | ({"unasked": kept[0]} if kept else {})


def _joined(found: dict[str, np.ndarray], features: str) -> np.ndarray:
    """Concatenate the columns that ``features`` asks for; report the others as unused."""
    wanted = "unasked" if features == "none" else features
    names = ["points"] if wanted == "unasked" and wanted not in found else ["points", wanted]
    if missing := [name for name in names if name not in found]:
        raise CorruptSample("decode", f"it has no {missing[0]}")
    if {found[name].shape for name in names} != {(len(found["points"]), 3)}:
        raise CorruptSample("decode", f"{' and '.join(names)} are not (N, 3) arrays")
    for name in ("normals", "colors"):
        if name in found and found[name] is not found.get(wanted):
            notice(f"{name} of clouds, which data pack --features {name} keeps")
    parts = [found["parts"][:, None]] if "parts" in found else []
    return np.concatenate([*(found[name] for name in names), *parts], axis=1)
