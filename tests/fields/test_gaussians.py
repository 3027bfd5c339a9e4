"""3-D Gaussian splats on a grid: against the plain sum, axes, bad files."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from mimsuite.cli.main import main
from mimsuite.data.volume import files as grids
from mimsuite.errors import DataError
from mimsuite.fields.gaussians import read_gaussians, splat_grid
from mimsuite.fields.sample import grid_points

NAMES = ["x", "y", "z", "nx", "f_dc_0", "f_dc_1", "f_dc_2", "f_rest_0", "opacity"]
NAMES += [f"scale_{i}" for i in range(3)] + [f"rot_{i}" for i in range(4)]


def ply(file: Path, rows: np.ndarray, names: list[str] = NAMES) -> Path:
    fields = "".join(f"property float {name}\n" for name in names)
    head = f"ply\nformat binary_little_endian 1.0\nelement vertex {len(rows)}\n{fields}end_header\n"
    file.write_bytes(head.encode() + rows.astype("<f4").tobytes())
    return file


def cloud(count: int = 40) -> np.ndarray:
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(count, len(NAMES)))
    rows[:, :3] = rng.uniform(-1, 1, (count, 3))
    rows[:, 9:12] = np.log(rng.uniform(0.05, 0.3, (count, 3)))
    return rows


def test_a_grid_equals_the_plain_sum_over_all_gaussians(tmp_path: Path) -> None:
    splats = read_gaussians(ply(tmp_path / "a.ply", cloud()))
    box = np.array([[-1.0] * 3, [1.0] * 3])
    grid = splat_grid(splats, bbox=box, max_res=16)
    voxel = 2 / 15
    points = grid_points(box, grid.values.shape[:3])
    clear, weight = torch.ones(len(points)), torch.zeros(len(points))
    colour = torch.zeros(len(points), 3)
    for i in range(len(splats.centres)):
        axes = splats.deviations[i].clamp_min(voxel / 2)
        covariance = splats.turns[i] @ torch.diag(axes**2) @ splats.turns[i].T
        offset = points - splats.centres[i]
        distance = (offset @ torch.linalg.inv(covariance) * offset).sum(1)
        share = splats.opacity[i] * (-distance / 2).exp() * (distance <= 9)
        clear, weight = clear * (1 - share), weight + share
        colour += share[:, None] * splats.colour[i]
    values = torch.from_numpy(grid.values).flatten(0, 2)
    alpha = 1 - (-values[:, 3] * grid.delta).exp()
    torch.testing.assert_close(alpha, 1 - clear, atol=1e-4, rtol=0)
    seen = weight > 1e-3
    expected = colour[seen] / weight[seen, None]
    torch.testing.assert_close(values[seen, :3], expected, atol=1e-3, rtol=0)
    assert grid.delta == pytest.approx(voxel)


def test_the_named_axis_points_upwards(tmp_path: Path) -> None:
    """A flat disc above the middle, seen from files whose upright axes differ."""
    row = np.zeros((1, len(NAMES)))
    row[:, 8], row[:, 12] = 5.0, 1.0
    row[:, :3], row[:, 9:12] = [0, -0.5, 0], np.log([0.4, 0.1, 0.4])
    box = np.array([[-1.0] * 3, [1.0] * 3])
    splats = read_gaussians(ply(tmp_path / "a.ply", row), "-y")
    grid = splat_grid(splats, bbox=box, max_res=16)
    heights = np.argwhere(grid.values[..., 3] > 1.0)
    assert heights[:, 2].min() > 7
    assert np.ptp(heights[:, 2]) < np.ptp(heights[:, 0])
    proper = [
        float(torch.linalg.det(read_gaussians(tmp_path / "a.ply", up).turns[0]))
        for up in ("z", "y", "-y", "-z")
    ]
    assert proper == pytest.approx([1.0] * 4)
    assert math.isclose(float(splats.centres[0, 2]), 0.5, abs_tol=1e-6)


def test_the_command_and_files_that_are_no_splats(tmp_path: Path) -> None:
    file = ply(tmp_path / "a.ply", cloud())
    out = tmp_path / "a.npz"
    assert main(["data", "nerf-grid-splats", str(file), "--out", str(out), "--max-res", "12"]) == 0
    stored = grids.read(out.read_bytes())
    assert stored.density_kind == "linear"
    assert max(stored.values.shape) == 12
    with np.load(out, allow_pickle=False) as arrays:
        assert str(arrays["source"]) == "3dgs"
    assert main(["data", "nerf-grid-splats", str(file), "--out", str(out), "--up", "w"]) == 2
    with pytest.raises(DataError, match="its vertices lack y"):
        read_gaussians(ply(tmp_path / "b.ply", cloud()[:, :1], ["x"]))
    cut = tmp_path / "cut.ply"
    cut.write_bytes(file.read_bytes()[:-9])
    with pytest.raises(DataError, match="are not there"):
        read_gaussians(cut)
    (tmp_path / "text.ply").write_text("ply\nformat ascii 1.0\nend_header\n")
    with pytest.raises(DataError, match="no binary little-endian"):
        read_gaussians(tmp_path / "text.ply")
    rows = cloud()
    rows[0, 9] = np.nan
    with pytest.raises(DataError, match="not finite"):
        read_gaussians(ply(tmp_path / "nan.ply", rows))
