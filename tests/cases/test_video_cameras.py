"""Cameras of posed pictures: every published form is used as it is meant, or refused in a line."""

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
from mimsuite.errors import DataError
from mimsuite.fields.cameras import read_cameras
from mimsuite.fields.grid_nerf import fit
from mimsuite.fields.lens import Lens
from mimsuite.fields.posed import read_posed
from mimsuite.fields.sample import in_picture

CASES = Path(__file__).parent
POSE = np.array([[0.0, -0.2, 0.98, 2.9], [1, 0, 0, 0.1], [0, 0.98, 0.2, 0.6], [0, 0, 0, 1]])
POSE[:3, 1] = np.cross(POSE[:3, 2], POSE[:3, 0])
POSE[:3, :2] /= np.linalg.norm(POSE[:3, :2], axis=0)
POSE[:3, 2] = np.cross(POSE[:3, 0], POSE[:3, 1])


def scene(folder: Path, size: tuple[int, int] = (30, 40), frames: int = 2, **keys: Any) -> Path:
    """A transforms.json with pictures of (height, width), named as Blender does."""
    listed = []
    for number in range(frames):
        pixels = np.full((*size, 4), (200, 100, 0, 128), np.uint8)
        Image.fromarray(pixels).save(folder / f"r_{number}.png")
        listed.append({"file_path": f"./r_{number}", "transform_matrix": POSE.tolist()})
    path = folder / "transforms.json"
    path.write_text(json.dumps({"frames": listed, **keys}))
    return path


def shown_at(x: float, y: float, keys: dict[str, Any]) -> tuple[float, float]:
    """Where OpenCV's model shows a direction (x, y, 1), y downwards."""
    k = [float(keys.get(f"k{n}", 0)) for n in range(1, 5)]
    if keys.get("camera_model") == "OPENCV_FISHEYE":
        away = math.hypot(x, y)
        angle = math.atan(away)
        grow = angle * (1 + sum(k[n] * angle ** (2 * n + 2) for n in range(4))) / away
        u, v = x * grow, y * grow
    else:
        p1, p2, square = keys.get("p1", 0), keys.get("p2", 0), x * x + y * y
        grow = 1 + sum(k[n] * square ** (n + 1) for n in range(3))
        u = x * grow + 2 * p1 * x * y + p2 * (square + 2 * x * x)
        v = y * grow + p1 * (square + 2 * y * y) + 2 * p2 * x * y
    return keys["fl_x"] * u + keys["cx"], keys["fl_y"] * v + keys["cy"]


PLAIN = {"fl_x": 35.0, "fl_y": 33.0, "cx": 23.5, "cy": 12.25, "w": 40, "h": 30}
LENSES = {
    "principal point": {},
    "barrel": {"camera_model": "OPENCV", "k1": -0.18, "k2": 0.03, "p1": 1e-3, "p2": -2e-3},
    "cushion": {"k1": 0.12, "k2": 0.02, "k3": 0.01},
    "simple radial": {"camera_model": "SIMPLE_RADIAL", "k1": 0.05},
    "fisheye": {"camera_model": "OPENCV_FISHEYE", "k1": 0.04, "k2": -0.01, "k3": 1e-3, "k4": 1e-4},
}


@pytest.mark.parametrize("kind", LENSES)
def test_rays_go_where_the_lens_looks(kind: str, tmp_path: Path) -> None:
    keys = PLAIN | LENSES[kind]
    posed = read_posed(scene(tmp_path, **keys))
    _, directions, _ = posed.rays(0)
    local = (directions @ torch.from_numpy(POSE[:3, :3]).float()).view(30, 40, 3)
    for row, column in ((0, 0), (29, 39), (12, 23), (3, 30)):
        x, y, z = local[row, column].tolist()
        at = shown_at(x / -z, -y / -z, keys)
        assert at == pytest.approx((column + 0.5, row + 0.5), abs=1e-3)


@pytest.mark.parametrize("kind", LENSES)
def test_points_are_shown_where_their_rays_come_from(kind: str, tmp_path: Path) -> None:
    lens = read_cameras(scene(tmp_path, **PLAIN | LENSES[kind])).cameras[0].lens
    assert lens is not None
    pixels, shown = lens.pixels(3 * lens.directions().view(-1, 3))
    y, x = torch.meshgrid(torch.arange(30), torch.arange(40), indexing="ij")
    assert torch.allclose(pixels, torch.stack([x, y], -1).view(-1, 2) + 0.5, atol=1e-3)
    assert bool(shown.all())
    assert not bool(lens.pixels(torch.tensor([[0.0, 0, 1], [9, 0, -1], [0, -9, -1]]))[1].any())


def test_lenses_may_differ_from_frame_to_frame(tmp_path: Path) -> None:
    path = scene(tmp_path, **PLAIN)
    document = json.loads(path.read_text())
    document["frames"][1] |= {"fl_x": 50.0, "fl_y": 51.0, "cx": 10.0, "k1": 0.01}
    path.write_text(json.dumps(document))
    first, second = read_posed(path).lenses
    assert (first.focal, first.centre) == ((35.0, 33.0), (23.5, 12.25))
    assert (second.focal, second.centre, second.radial[0]) == ((50.0, 51.0), (10.0, 12.25), 0.01)
    del document["frames"][1]["fl_y"], document["frames"][1]["fl_x"]
    document["frames"][1]["camera_angle_x"] = math.pi / 2  # in place of the file's lengths
    path.write_text(json.dumps(document))
    assert read_posed(path).lenses[1].focal == pytest.approx((20.0, 20.0))


@pytest.mark.parametrize(
    ("keys", "focal"),
    [
        ({"camera_angle_x": math.pi / 2}, (20, 20)),
        ({"camera_angle_y": math.pi / 2}, (15, 15)),
        ({"camera_angle_x": math.pi / 2, "camera_angle_y": math.pi / 2}, (20, 15)),
        ({"x_fov": 90.0}, (20, 20)),
        ({"fl_x": 33.0}, (33, 33)),
        ({"fl_x": 66.0, "fl_y": 60.0, "w": 80, "h": 60, "cx": 38.0, "cy": 32.0}, (33, 30)),
        ({"camera_angle_x": math.pi / 2, "w": 161, "h": 121}, (20, 20)),
    ],
)
def test_sizes_come_from_the_pictures(
    keys: dict[str, Any], focal: tuple[float, float], tmp_path: Path
) -> None:
    lens = read_posed(scene(tmp_path, **keys)).lenses[0]
    assert lens.size == (30, 40)
    assert lens.focal == pytest.approx(focal, rel=0.01)
    if "cx" in keys:
        assert lens.centre == (19, 16)


@pytest.mark.parametrize(
    ("keys", "fault"),
    [
        ({"camera_model": "EQUIRECTANGULAR"}, "camera_model EQUIRECTANGULAR is not supported"),
        ({"camera_model": "FISHEYE624"}, "is not supported: use PINHOLE"),
        ({"shear": [0.0, 0.1]}, "shear is not supported"),
        ({"k4": 0.01}, "k4 is not supported; undistort"),
        ({"camera_model": "OPENCV_FISHEYE", "p1": 0.01}, "p1 is not supported"),
        ({"k1": -2.0}, "cannot be undone"),
        ({"fl_x": "wide"}, "fl_x is 'wide', not a number"),
        ({"fl_x": 0.0}, "must be above 0"),
        ({"distortion": [0.1, 0, 0, 0]}, "distortion is not read: write the lens as fl_x"),
        ({"intrinsics": [[50, 0, 20], [0, 50, 15], [0, 0, 1]]}, "intrinsics is not read: write"),
        ({"K": [[50, 0, 20], [0, 50, 15], [0, 0, 1]]}, "K is not read: write the lens"),
        ({"focal_length": 50.0}, "focal_length is not read: write the lens"),
        ({"shift_x": 0.1}, "shift_x is not read: write the lens"),
        ({"w": 40, "h": 40}, "40 x 30 pixels, but its camera has w x h of 40 x 40"),
        ({"fl_x": None, "fl_y": None}, "no focal length"),
    ],
)
def test_what_is_not_read_is_refused_in_a_line(
    keys: dict[str, Any], fault: str, tmp_path: Path, capsys: Any
) -> None:
    path = scene(tmp_path, **PLAIN | keys)
    assert main(["data", "fit-nerf", str(path), "--out", str(tmp_path / "o.npz")]) == 3
    said = capsys.readouterr().err
    assert fault in said
    assert said.count("\n") == 1
    assert not (tmp_path / "o.npz").exists()


def test_moving_scenes_are_refused(tmp_path: Path) -> None:
    path = scene(tmp_path, **PLAIN)
    document = json.loads(path.read_text())
    for number, frame in enumerate(document["frames"]):
        frame["time"] = number / 2
    path.write_text(json.dumps(document))
    with pytest.raises(DataError, match="the scene moves"):
        read_cameras(path)


def test_keys_that_are_not_used_are_named(tmp_path: Path) -> None:
    more = {"aabb_scale": 4, "scale": 0.33, "offset": [0.5] * 3, "ply_file_path": "a.ply"}
    path = scene(tmp_path, **PLAIN, **more, applied_transform=POSE[:3].tolist())
    document = json.loads(path.read_text())
    document["frames"][0]["mask_path"] = "mask.png"
    path.write_text(json.dumps(document))
    path.with_name("transforms_test.json").write_text("{}")
    assert sorted(read_posed(tmp_path).unused.lines()) == [
        "keys of the cameras' file: "
        "aabb_scale, applied_transform, offset, ply_file_path, scale (5)",
        "mask_path of frames (1)",
        "other files of cameras (1): transforms_test.json",
    ]


def test_transparent_pixels_are_laid_on_the_background(tmp_path: Path) -> None:
    path = scene(tmp_path, **PLAIN)
    white, black = read_posed(path), read_posed(path, background=0.0)
    share = 128 / 255
    expected = share * np.array([200, 100, 0]) / 255
    assert black.rgb[0, 0, 0].numpy() == pytest.approx(expected, abs=1e-6)
    assert white.rgb[0, 0, 0].numpy() == pytest.approx(expected + 1 - share, abs=1e-6)


def test_frustums_use_the_principal_point() -> None:
    camera = read_cameras(CASES / "nerf-off-centre").cameras[0]
    assert camera.lens == Lens((48, 48), camera.lens.focal, (32.0, 19.0))  # type: ignore[union-attr]
    pose = torch.from_numpy(camera.pose).float()
    ahead = torch.tensor([[0.55, 0.0, -1.0], [-0.45, 0.0, -1.0]]) @ pose[:, :3].T + pose[:, 3]
    assert in_picture(ahead, camera).tolist() == [False, True]


@pytest.mark.parametrize("kind", ["plain", "off-centre", "angle-only"])
@pytest.mark.parametrize("given", ["folder", "file"])
def test_cases_have_their_cameras(kind: str, given: str) -> None:
    folder = CASES / f"nerf-{kind}"
    posed = read_posed(folder if given == "folder" else next(folder.glob("*.json")))
    assert len(posed.rgb) == 24
    centre = (32.0, 19.0) if kind == "off-centre" else (24.0, 24.0)
    assert posed.lenses[0].centre == centre
    assert posed.lenses[0].focal == pytest.approx((65.7483, 65.7483), abs=1e-3)


@pytest.mark.parametrize("kind", ["plain", "off-centre", "angle-only"])
def test_cases_are_fitted(kind: str) -> None:
    """With fewer steps than the published figure of 26.9 dB needs."""
    fitted = fit(read_posed(CASES / f"nerf-{kind}"), side=24, steps=60, rays=512, samples=32)
    assert fitted.learnt
    assert fitted.psnr > fitted.blank + 7


def test_a_fit_that_shows_nothing_is_an_error(tmp_path: Path, capsys: Any) -> None:
    path = tmp_path / "transforms.json"
    document = json.loads((CASES / "nerf-off-centre" / "transforms.json").read_text())
    del document["cx"], document["cy"]
    for frame in document["frames"]:
        frame["file_path"] = str(CASES / "nerf-off-centre" / frame["file_path"])
    path.write_text(json.dumps(document))
    out = tmp_path / "grid.npz"
    words = ["data", "fit-nerf", str(path), "--out", str(out), "--steps", "60", "--side", "24"]
    assert main(words) == 0
    assert "warning: hardly better" in capsys.readouterr().err
    out.unlink()
    words[words.index("60")] = "5"
    assert main(words) == 3
    assert "nothing was learnt" in capsys.readouterr().err
    assert not out.exists()
