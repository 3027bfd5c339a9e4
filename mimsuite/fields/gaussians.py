"""3-D Gaussian splats (Kerbl et al., arXiv:2308.04079), sampled on a grid for NeRF-MAE.

The opacity of a point is ``1 - prod(1 - o_i G_i)`` over the Gaussians around it, its colour their
mean weighted by ``o_i G_i``. A Gaussian's colour is the first term of its spherical harmonics,
their mean over all directions. Splats are thin shells where fields are solid, so these grids are
marked ``source = 3dgs`` and should not be mixed with others.

Letters: S Gaussians, P pairs of a Gaussian and a voxel, (X, Y, Z) voxels.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mimsuite.errors import DataError
from mimsuite.fields.sample import Grid, grid_points, sides_of

_HARMONIC = 0.28209479177387814  # the first spherical harmonic
_REACH = 3.0  # standard deviations beyond which a Gaussian is ignored
_LEAST = 0.5  # voxels: smallest deviation; thinner Gaussians would fall between samples
_MOST_PAIRS = 1 << 20  # pairs per chunk
_CUT = 0.005  # share of the centres that the default box leaves out at each end of an axis
_OPAQUE = 1 - 1e-6
_HEADER_BYTES = 1 << 16
_UPWARDS = {  # rotations of the named axis to z
    "z": [[1, 0, 0], [0, 1, 0], [0, 0, 1]],
    "y": [[0, 0, 1], [1, 0, 0], [0, 1, 0]],
    "-y": [[0, 0, 1], [-1, 0, 0], [0, -1, 0]],
    "-z": [[1, 0, 0], [0, -1, 0], [0, 0, -1]],
}
UPWARDS = tuple(_UPWARDS)
_TYPES = {"float": "<f4", "double": "<f8", "uchar": "u1", "int": "<i4", "uint": "<u4"}


@dataclass(frozen=True)
class Gaussians:
    """Parameters of Gaussians after their activations.

    Attributes:
        centres: (S, 3).
        deviations: (S, 3) standard deviations along the principal axes.
        turns: (S, 3, 3) rotations from the principal axes to the world.
        opacity, colour: (S,) and (S, 3) in [0, 1].
    """

    centres: Tensor
    deviations: Tensor
    turns: Tensor
    opacity: Tensor
    colour: Tensor


def read_gaussians(file: Path, up: str = "z") -> Gaussians:
    """Read a ``.ply`` in the layout of the published code: binary, one vertex per Gaussian.

    Args:
        up: the axis that points up in the file, one of :data:`UPWARDS`; the result is z-up.

    Raises:
        DataError: the file has another layout.
    """
    table = _vertices(file)
    required = ["x", "y", "z", "opacity"]
    required += [
        f"{name}_{i}" for name, n in (("f_dc", 3), ("scale", 3), ("rot", 4)) for i in range(n)
    ]
    lacking = [name for name in required if name not in (table.dtype.names or ())]
    if lacking or not len(table):
        raise DataError(f"{file}: no Gaussian splats, its vertices lack {', '.join(lacking)}")
    columns = {name: torch.from_numpy(table[name].astype(np.float32)) for name in required}

    def stacked(*names: str) -> Tensor:
        return torch.stack([columns[name] for name in names], dim=1)

    turn = torch.tensor(_UPWARDS[up], dtype=torch.float32)
    dc = stacked(*(f"f_dc_{i}" for i in range(3)))
    gaussians = Gaussians(
        stacked("x", "y", "z") @ turn.T,
        stacked(*(f"scale_{i}" for i in range(3))).exp(),
        turn @ _rotations(stacked(*(f"rot_{i}" for i in range(4)))),
        columns["opacity"].sigmoid(),
        (0.5 + _HARMONIC * dc).clamp(0, 1),
    )
    if not all(bool(part.isfinite().all()) for part in vars(gaussians).values()):
        raise DataError(f"{file}: Gaussians with values that are not finite")
    return gaussians


def splat_grid(splats: Gaussians, *, bbox: np.ndarray | None = None, max_res: int = 160) -> Grid:
    """Sample Gaussians on a grid, as linear density with the side of a voxel as ``delta``.

    Args:
        bbox: (2, 3); None: box of the centres without the outermost half percent at each end.
        max_res: voxels along the longest side.

    Raises:
        DataError: the box is empty.
    """
    if bbox is None:
        ends = np.quantile(splats.centres.numpy(), [_CUT, 1 - _CUT], axis=0)
        bbox = ends.astype(np.float64)
    if not np.isfinite(bbox).all() or (bbox[1] <= bbox[0]).any():
        raise DataError(f"the box to sample is empty: {bbox.tolist()}; give --bbox")
    sides = sides_of(bbox, max_res)
    voxel = torch.from_numpy((bbox[1] - bbox[0]) / (np.array(sides) - 1)).float()
    points = grid_points(bbox, sides)  # (X Y Z, 3)
    deviations = splats.deviations.clamp_min(_LEAST * float(voxel.max()))
    clear = torch.zeros(len(points))  # sum of log(1 - alpha)
    weight, colour = torch.zeros(len(points)), torch.zeros(len(points), 3)
    low = torch.from_numpy(bbox[0]).float()
    for which, at in _pairs(splats, deviations, low, voxel, sides):
        local = torch.einsum("pji,pj->pi", splats.turns[which], points[at] - splats.centres[which])
        distance = (local / deviations[which]).square().sum(1)
        share = splats.opacity[which] * (-distance / 2).exp() * (distance <= _REACH**2)
        clear.index_add_(0, at, torch.log1p(-share.clamp_max(_OPAQUE)))
        weight.index_add_(0, at, share)
        colour.index_add_(0, at, share[:, None] * splats.colour[which])
    length = float(voxel.max())
    colour = colour / weight.clamp_min(1e-12)[:, None]
    values = torch.cat([colour, (-clear / length)[:, None]], dim=1).view(*sides, 4)
    return Grid(values.numpy(), bbox, "linear", length, {"source": "3dgs"})


def _pairs(
    splats: Gaussians, deviations: Tensor, low: Tensor, voxel: Tensor, sides: tuple[int, int, int]
) -> Iterator[tuple[Tensor, Tensor]]:
    """Chunks of (P,) Gaussians and (P,) flat voxels, for all voxels within ``_REACH``."""
    spread = (splats.turns.square() * deviations.square()[:, None]).sum(-1).sqrt()  # (S, 3)
    most = torch.tensor(sides) - 1
    first = ((splats.centres - _REACH * spread - low) / voxel).ceil().long().clamp_min(0)
    last = torch.minimum(((splats.centres + _REACH * spread - low) / voxel).floor().long(), most)
    counts = (last - first + 1).clamp_min(0)  # (S, 3)
    total = counts.prod(1)
    alive = total.nonzero().flatten()
    ends = total[alive].cumsum(0)
    start = 0
    while start < len(alive):
        before = int(ends[start - 1]) if start else 0
        stop = max(start + 1, int(torch.searchsorted(ends, before + _MOST_PAIRS, right=True)))
        chosen = alive[start:stop]
        which = chosen.repeat_interleave(total[chosen])
        offsets = (ends[start:stop] - total[chosen] - before).repeat_interleave(total[chosen])
        number = torch.arange(len(which)) - offsets
        _, y, z = counts[which].unbind(1)
        place = torch.stack([number // (y * z), number // z % y, number % z], dim=1) + first[which]
        yield which, (place[:, 0] * sides[1] + place[:, 1]) * sides[2] + place[:, 2]
        start = stop


def _rotations(quaternions: Tensor) -> Tensor:
    """Quaternions (S, 4), real part first -> rotation matrices (S, 3, 3)."""
    w, x, y, z = torch.nn.functional.normalize(quaternions, dim=1).unbind(1)
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    return torch.stack([torch.stack(row, dim=1) for row in rows], dim=1)


def _vertices(file: Path) -> np.ndarray:
    """The table of vertices, which must be the first element of a binary little-endian file."""
    try:
        data = file.read_bytes()
    except OSError as fault:
        raise DataError(f"cannot read {file}: {fault.strerror}") from None
    head, mark, _ = data[:_HEADER_BYTES].partition(b"end_header\n")
    lines = [line.split() for line in head.decode("ascii", "replace").splitlines()]
    if lines[:2] != [["ply"], ["format", "binary_little_endian", "1.0"]] or not mark:
        raise DataError(f"{file}: no binary little-endian .ply file")
    elements = [i for i, line in enumerate(lines) if line[:1] == ["element"]]
    if not elements or lines[elements[0]][1:2] != ["vertex"]:
        raise DataError(f"{file}: its first element is no list of vertices")
    ends = elements[1] if len(elements) > 1 else len(lines)
    fields = [line for line in lines[elements[0] + 1 : ends] if line[:1] == ["property"]]
    count = lines[elements[0]][2]
    try:
        dtype = np.dtype([(name, _TYPES[kind]) for _, kind, name in fields])
        return np.frombuffer(data, dtype, int(count), offset=len(head) + len(mark))
    except (ValueError, KeyError, TypeError):
        raise DataError(
            f"{file} is incomplete: {count} vertices of {len(fields)} numbers are not there"
        ) from None
