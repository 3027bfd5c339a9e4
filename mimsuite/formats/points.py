"""Point clouds: stored as ``.npy`` float32 (N, 3), or (N, 6) with normals or colours; a further
column, of plain numbers, is the part that a point is of.

Read from ``.npy``, ``.npz``, text (``.xyz``), PLY and PCD, and sampled from the surfaces of OBJ,
OFF, STL and PLY meshes. Which format it is, the content tells, whatever the file is called.
"""

from __future__ import annotations

import io

import numpy as np

from mimsuite.errors import CorruptSample
from mimsuite.formats.arrays import NPY_MAGIC, ZIP_MAGIC, read_npy, read_npz
from mimsuite.formats.meshes import Mesh, read_obj, read_off, sample_surface
from mimsuite.formats.open3d_files import (
    MOST_POINTS,
    is_text_stl,
    read_pcd,
    read_ply,
    read_stl,
)

FEATURES = ("none", "normals", "colors")
DEFAULT_POINTS = 8192  # of a mesh
_MOST_BYTES = 6 * 8 * MOST_POINTS
_TILE = 128
_MOST_PARTS = 1 << 11  # numbers that float16 holds exactly


def facts(data: bytes) -> dict[str, int | float | str]:
    """Points, columns and type; of a mesh its vertices and triangles."""
    found = _read(data)
    if isinstance(found, Mesh):
        return {"vertices": len(found.vertices), "triangles": len(found.triangles)}
    points = _columns(found, "none" if "points" in found else "any")
    return {"points": len(points), "columns": f"{points.shape[1]} x {points.dtype}"}


def store(
    data: bytes, *, points: int | None = None, features: str = "none", seed: int = 0
) -> tuple[str, bytes]:
    """A cloud as ``.npy``.

    Args:
        points: drawn from larger clouds, which else keep all of theirs, and from surfaces, 8192
            by default.
        features: a further three columns: ``normals`` or ``colors`` of PLY and PCD files,
            ``normals`` of surfaces. Files of plain numbers keep the columns they have.
        seed: of the draw.
    """
    found = _read(data)
    rng = np.random.Generator(np.random.Philox(key=seed))
    if isinstance(found, Mesh):
        if features == "colors":
            raise CorruptSample("decode", "a mesh has no colours to store")
        draw = int(rng.integers(1 << 31))
        cloud = sample_surface(found, points or DEFAULT_POINTS, draw, normals=features == "normals")
    else:
        cloud = _columns(found, features if "points" in found else "any")
        if points is not None and points < len(cloud):
            cloud = cloud[np.sort(rng.choice(len(cloud), points, replace=False))]
    stream = io.BytesIO()
    np.save(stream, np.ascontiguousarray(cloud, dtype="<f4"), allow_pickle=False)
    return "npy", stream.getvalue()


def picture(data: bytes) -> np.ndarray:
    """(128, 128, 3) uint8: the cloud from a corner, y upwards; near points are darker."""
    found = _read(data)
    cloud = (
        found.vertices
        if isinstance(found, Mesh)
        else _columns(found, "none" if "points" in found else "any")
    )
    return draw(cloud, _TILE)


def draw(cloud: np.ndarray, side: int) -> np.ndarray:
    """(side, side, 3) uint8 scatter of (N, 3 or more) points on white."""
    points = cloud[:, :3].astype(np.float64)
    points -= (points.min(axis=0) + points.max(axis=0)) / 2
    points /= max(float(np.linalg.norm(points, axis=1).max()), 1e-12)
    turn, tilt = np.radians(35), np.radians(25)
    x = points[:, 0] * np.cos(turn) - points[:, 2] * np.sin(turn)
    depth = points[:, 0] * np.sin(turn) + points[:, 2] * np.cos(turn)
    y = points[:, 1] * np.cos(tilt) - depth * np.sin(tilt)
    depth = points[:, 1] * np.sin(tilt) + depth * np.cos(tilt)  # towards the eye
    canvas = np.full((side, side, 3), 255, dtype=np.uint8)
    order = np.argsort(depth)  # the nearest are drawn last
    near = ((depth[order] + 1) / 2)[:, None]
    colours = ((1 - near) * [176, 205, 230] + near * [16, 52, 110]).astype(np.uint8)
    columns = ((x[order] * 0.48 + 0.5) * (side - 2)).astype(int)
    rows = ((0.5 - y[order] * 0.48) * (side - 2)).astype(int)
    for right, down in ((0, 0), (1, 0), (0, 1), (1, 1)):
        canvas[rows + down, columns + right] = colours
    return canvas


def _read(data: bytes) -> Mesh | dict[str, np.ndarray]:
    """A mesh, or named columns; ``values`` are numbers without a name."""
    start = data[:256].lstrip()
    if data.startswith(NPY_MAGIC):
        return {"values": read_npy(data, "fiu", _MOST_BYTES)}
    if data.startswith(ZIP_MAGIC):
        return _from_npz(read_npz(data, "fiub", _MOST_BYTES))
    if start.startswith(b"ply"):
        return read_ply(data)
    if start.startswith((b"# .PCD", b"VERSION ", b"VERSION\t")):
        return read_pcd(data)
    if start.startswith((b"OFF", b"COFF", b"NOFF", b"CNOFF")):
        return read_off(data)
    if is_text_stl(data) or _is_binary_stl(data):
        return read_stl(data)
    if b"\0" in data[:4096]:
        raise CorruptSample("decode", "no point cloud or mesh of a known format")
    if any(line.startswith((b"v ", b"v\t")) for line in data.splitlines()):
        return read_obj(data)
    return {"values": _from_text(data)}


def _is_binary_stl(data: bytes) -> bool:
    # They begin with anything, so their size must fit; one that was cut off has no other mark.
    return len(data) > 84 and len(data) == 84 + 50 * int.from_bytes(data[80:84], "little")


def _from_npz(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    if "points" in arrays:
        named = {"points", "normals", "colors"} & set(arrays)
        return {name: arrays[name] for name in named}
    tables = [values for values in arrays.values() if values.ndim == 2]
    if len(tables) != 1:
        raise CorruptSample("decode", f"no array 'points' in it; it has {', '.join(arrays)[:80]}")
    return {"values": tables[0]}


def _from_text(data: bytes) -> np.ndarray:
    text = data.decode("utf-8", "replace").replace(",", " ")
    if not text.strip():
        raise CorruptSample("decode", "an empty file")
    try:
        return np.loadtxt(io.StringIO(text), dtype=np.float64, ndmin=2, comments=("#", "//"))
    except ValueError:
        raise CorruptSample("decode", "no point cloud or mesh of a known format") from None


def _columns(found: dict[str, np.ndarray], features: str) -> np.ndarray:
    """(N, 3) or (N, 6) float32, or one column more, finite.

    Args:
        features: as :func:`store`; ``any``: what is there.
    """
    if "values" in found:
        cloud = found["values"]
    else:
        names = ["points"] if features == "none" else ["points", features]
        if missing := [name for name in names if name not in found]:
            raise CorruptSample("decode", f"it has no {missing[0]}")
        if {found[name].shape for name in names} != {(len(found["points"]), 3)}:
            raise CorruptSample("decode", f"{' and '.join(names)} are not (N, 3) arrays")
        cloud = np.concatenate([found[name] for name in names], axis=1)
    if cloud.ndim != 2 or cloud.shape[1] not in (3, 4, 6, 7):
        raise CorruptSample(
            "decode", f"an array of shape {cloud.shape}; a cloud has 3 or 6 columns, or one more"
        )
    if not 0 < len(cloud) <= MOST_POINTS:
        raise CorruptSample("too-large" if len(cloud) else "decode", f"{len(cloud)} points")
    cloud = cloud.astype(np.float32)
    if not np.isfinite(cloud).all():
        raise CorruptSample("decode", "coordinates that are not finite")
    if cloud.shape[1] % 3:
        check_parts(cloud[:, -1])
    return cloud


def check_parts(column: np.ndarray) -> None:
    """Refuse a column that holds anything but the numbers of parts.

    Raises:
        CorruptSample: kind ``decode``.
    """
    if ((column < 0) | (column >= _MOST_PARTS) | (column % 1 != 0)).any():
        raise CorruptSample("decode", "a last column that is no part's number")
