"""From fields and pictures to grids: cameras, sampling, the small field, bad input."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from mimsuite.cli.main import main
from mimsuite.data.volume import files as grids
from mimsuite.errors import DataError, UserError
from mimsuite.fields import Camera, Cameras, export_grid, read_cameras
from mimsuite.fields.grid_nerf import fit
from mimsuite.fields.lens import Lens
from mimsuite.fields.posed import Posed, read_posed
from mimsuite.fields.sample import in_picture, region, sides_of

BALL = 0.5


def ring(count: int, radius: float = 3.0) -> list[np.ndarray]:
    """Poses on a ring, looking at the origin; z is up."""
    poses = []
    for angle in np.linspace(0, 2 * math.pi, count, endpoint=False):
        back = np.array([math.cos(angle), math.sin(angle), 0.3])
        back /= np.linalg.norm(back)
        right = np.cross([0.0, 0.0, 1.0], back)
        right /= np.linalg.norm(right)
        poses.append(np.stack([right, np.cross(back, right), back, radius * back], axis=1))
    return poses


def ball(size: int = 24, views: int = 16) -> Posed:
    """Pictures of a red ball, drawn exactly."""
    focal = size / 2 / math.tan(math.radians(45) / 2)
    posed = Posed(
        torch.ones(views, size, size, 3),
        torch.from_numpy(np.stack(ring(views))).float(),
        [Lens((size, size), (focal, focal), (size / 2, size / 2))] * views,
    )
    for view in range(views):
        origins, directions, _ = posed.rays(view)
        nearest = origins - (origins * directions).sum(-1, keepdim=True) * directions
        hit = (nearest.norm(dim=-1) < BALL).view(size, size)
        posed.rgb[view][hit] = torch.tensor([1.0, 0.0, 0.0])
    return posed


def test_small_field_finds_a_ball() -> None:
    fitted = fit(ball(), side=24, steps=150, rays=512, samples=32)
    assert fitted.psnr > fitted.blank + 6
    grid = export_grid(
        fitted.field.density,
        fitted.field.rgb,
        Cameras([]),
        bbox=np.array([[-1.0] * 3, [1.0] * 3]),
        max_res=24,
        dirs="fixed18",
        delta=2 / 23,
        store="alpha",
    )
    axis = torch.linspace(-1, 1, 24)
    distance = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij")).norm(dim=0).numpy()
    alpha = grid.values[..., 3]
    assert alpha[distance < 0.9 * BALL].max() > 0.3
    assert alpha[distance > 1.5 * BALL].mean() < 0.05
    shell = (abs(distance - BALL) < 0.08) & (alpha > 0.1)
    colour = grid.values[shell][:, :3].mean(0)
    assert colour[0] > 0.6 > 0.4 > colour[1:].max()


def test_box_and_resolution_rules() -> None:
    cameras = Cameras([Camera(pose) for pose in ring(8)])
    low, high = cameras.centres().min(0), cameras.centres().max(0)
    assert np.allclose(region(cameras, 0.1), [low - 0.1 * (high - low), high + 0.1 * (high - low)])
    assert sides_of(np.array([[0, 0, 0], [4.0, 2.6, 1.0]]), 20) == (20, 14, 6)  # 13 and 5 are odd
    empty = Cameras([Camera(ring(1)[0])])
    with pytest.raises(DataError, match="box to sample is empty"):
        export_grid(lambda p: p[:, 0], lambda p, d: p, empty)


def test_colour_is_the_mean_over_cameras_and_only_where_there_is_matter() -> None:
    lens = Lens((20, 20), (24.0, 24.0), (10.0, 10.0))
    cameras = Cameras([Camera(pose, lens) for pose in ring(5)])
    box = np.array([[-1.0] * 3, [1.0] * 3])

    def density(points: torch.Tensor) -> torch.Tensor:
        return 100.0 * (points[:, 0] > 0)

    def rgb(points: torch.Tensor, views: torch.Tensor) -> torch.Tensor:
        return (views + 1) / 2

    grid = export_grid(density, rgb, cameras, bbox=box, max_res=8, chunk=100)
    mean = np.mean([(camera.direction + 1) / 2 for camera in cameras], axis=0)
    assert np.allclose(grid.values[4:, :, :, :3], mean, atol=1e-6)
    assert not grid.values[:4, :, :, :3].any()
    few = export_grid(density, rgb, cameras, bbox=box, max_res=8, max_views=1)
    assert np.allclose(few.values[7, 0, 0, :3], (next(iter(cameras)).direction + 1) / 2, atol=1e-6)
    seen = export_grid(density, rgb, cameras, bbox=box, max_res=8, dirs="frustum")
    point = torch.tensor([[1.0, 1.0, 1.0]])
    shown = [c for c in cameras if bool(in_picture(point, c))]
    assert 0 < len(shown) < 5
    mean = np.mean([(camera.direction + 1) / 2 for camera in shown], axis=0)
    assert np.allclose(seen.values[7, 7, 7, :3], mean, atol=1e-6)


def test_fields_that_answer_wrongly_are_named() -> None:
    cameras, box = Cameras([Camera(ring(1)[0])]), np.array([[-1.0] * 3, [1.0] * 3])
    with pytest.raises(DataError, match=r"density for 512 points is \(512, 3\), expected \(512,\)"):
        export_grid(lambda p: p, lambda p, d: p, cameras, bbox=box, max_res=8)
    with pytest.raises(DataError, match="colour is not finite"):
        export_grid(lambda p: 100 + p[:, 0], lambda p, d: p / 0, cameras, bbox=box, max_res=8)
    with pytest.raises(UserError, match="frustum needs"):
        export_grid(
            lambda p: 100 + p[:, 0], lambda p, d: d, cameras, bbox=box, max_res=8, dirs="frustum"
        )


def written(folder: Path, **changes: Any) -> Path:
    posed = ball(views=9)
    frames = []
    for view, pose in enumerate(posed.poses.tolist()):
        Image.fromarray((posed.rgb[view] * 255).byte().numpy()).save(folder / f"{view}.png")
        frames.append({"file_path": f"./{view}", "transform_matrix": [*pose, [0, 0, 0, 1]]})
    document = {"w": 24, "h": 24, "camera_angle_x": math.radians(45), "frames": frames}
    (folder / "transforms.json").write_text(json.dumps(document | changes))
    return folder / "transforms.json"


def test_posed_pictures_come_from_transforms_and_npz(tmp_path: Path) -> None:
    path, expected = written(tmp_path), ball(views=9)
    found = read_posed(path)
    assert torch.equal(found.rgb, expected.rgb)
    assert torch.allclose(found.poses, expected.poses)
    assert found.lenses[0].focal == pytest.approx(expected.lenses[0].focal)
    pixels = (expected.rgb * 255).byte().numpy()
    np.savez(tmp_path / "s.npz", **{"a/rgb": pixels, "a/c2w": expected.poses.numpy()})
    assert torch.equal(read_posed(tmp_path / "s.npz").rgb, expected.rgb)
    with pytest.raises(DataError, match="name one with --scene"):
        read_posed(tmp_path / "s.npz", "b")


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"frames": []}, "no list 'frames'"),
        ({"frames": [{"transform_matrix": [[1, 2]]}]}, "frame 0 has no usable transform_matrix"),
        ({"room_bbox": [[0, 0, 0], [1, 1, 0]]}, "are no boxes"),
    ],
)
def test_broken_cameras_are_named(tmp_path: Path, changes: dict[str, Any], fault: str) -> None:
    with pytest.raises(DataError, match=fault):
        read_cameras(written(tmp_path, **changes))


def test_commands_write_grids_that_the_suite_reads(tmp_path: Path, monkeypatch, capsys) -> None:
    path = written(tmp_path)
    out = tmp_path / "fitted.npz"
    words = ["data", "fit-nerf", str(path), "--out", str(out), "--steps", "20", "--side", "12"]
    assert main([*words, "--max-res", "16", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["resolution"] == "16 x 16 x 16"
    assert grids.facts(out.read_bytes())["density"] == "log"
    (tmp_path / "my_field.py").write_text(
        "def load():\n"
        "    return (lambda p: 9.0 * (p[:, 2] > 0)), (lambda p, d: p.abs().clamp(max=1))\n"
    )
    monkeypatch.chdir(tmp_path)
    words = ["data", "nerf-grid", "my_field:load", "--cameras", str(path), "--out", "sampled.npz"]
    assert main([*words, "--max-res", "12", "--store", "linear"]) == 3  # a flat ring of cameras
    assert "give --bbox" in capsys.readouterr().err
    words += ["--bbox", "-1,-1,-1,1,1,1"]
    assert main([*words, "--max-res", "12", "--store", "linear"]) == 0
    assert main([*words, "--bbox", "1,2"]) == 2
    assert grids.facts((tmp_path / "sampled.npz").read_bytes())["density"] == "linear"
    for bad in (["nope:load"], ["my_field"], ["my_field:nothing"]):
        assert main(["data", "nerf-grid", *bad, *words[3:]]) == 2
