"""Rendered rooms: the same bytes for the same seed, true depth, objects that are split for good."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mimsuite.cli.main import main
from mimsuite.data.synthetic.catalogue_meshes import CLASSES, catalogue
from mimsuite.data.synthetic.room_plans import draw_plan
from mimsuite.data.synthetic.tiny_renderer import TinyRenderer
from mimsuite.noise import keyed_rng
from tests import needs


@pytest.fixture(autouse=True)
def _needs_pybullet() -> None:
    needs.pybullet()


def synth(out: Path, *words: str) -> None:
    assert main(["data", "synth", "scenes", str(out), "--size", "48", *words]) == 0


def digests(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_a_set_is_labelled_synthetic_and_the_same_for_the_same_seed(tmp_path: Path) -> None:
    for name, seed in (("a", "3"), ("b", "3"), ("c", "4")):
        synth(tmp_path / name, "--count", "6", "--seed", seed)
    first, again, other = (digests(tmp_path / name) for name in "abc")
    assert first == again
    assert first != other
    facts = json.loads((tmp_path / "a" / "scenes.json").read_text())
    assert facts["synthetic"] is True
    assert "photographs" in facts["note"]
    assert facts["splits"] == {"train": 4, "test": 2}
    assert facts["classes"] == ["floor", "wall", *CLASSES]
    assert all(one["licence"] and one["creator"] for one in facts["objects"]["train"])
    for split, count in facts["splits"].items():
        for kind in ("images", "masks", "instances", "depth"):
            assert len(list((tmp_path / "a" / kind / split).iterdir())) == count
    mask = np.asarray(Image.open(tmp_path / "a/masks/train/000001.png"))
    piece = np.asarray(Image.open(tmp_path / "a/instances/train/000001.png"))
    assert mask.max() < len(facts["classes"])  # floor and walls fill the picture
    assert np.array_equal(piece == 0, mask < 2)
    for number in np.unique(piece[piece > 0]):
        assert len(np.unique(mask[piece == number])) == 1


def test_no_object_is_in_both_splits_whatever_the_seed() -> None:
    objects = catalogue()
    rows = {
        split: {one.row for kind in by_class.values() for one in kind}
        for split, by_class in objects.items()
    }
    assert not rows["train"] & rows["test"]
    for kind, size in CLASSES.items():
        assert len(objects["test"][kind]) >= 5
        for one in objects["test"][kind]:
            sides = one.vertices.max(0) - one.vertices.min(0)
            assert 0.84 * size < sides.max() < 1.16 * size
            assert one.vertices[:, 2].min() == pytest.approx(0)
    plan = draw_plan(objects["test"], keyed_rng(0, "plan"))
    assert {piece.shape.row for piece in plan.pieces} <= rows["test"]


def test_depth_is_that_of_the_planes_of_the_room() -> None:
    plan = draw_plan({"lamp": catalogue()["train"]["lamp"][:1]}, keyed_rng(1, "plan"))
    with TinyRenderer() as renderer:
        view = renderer.render(plan, 64)
    forward = (plan.target - plan.eye) / np.linalg.norm(plan.target - plan.eye)
    right = np.cross(forward, [0, 0, 1])
    right /= np.linalg.norm(right)
    up = np.cross(right, forward)
    tangent = np.tan(np.radians(plan.field_of_view / 2))
    at = ((np.arange(64) + 0.5) / 64 * 2 - 1) * tangent
    rays = forward + at[None, :, None] * right - at[:, None, None] * up  # 1 along the axis
    planes = {0: (2, 0.0), 1: (0, -plan.half), 2: (1, plan.half)}
    for body, (axis, place) in planes.items():
        seen = view.body == body
        assert seen.any()
        exact = ((place - plan.eye[axis]) / rays[..., axis])[seen]
        off = np.abs(view.depth[seen] / exact - 1)
        # The renderer's pixel centres are half a pixel off at most, which tells at grazing angles.
        assert np.median(off) < 0.02
        assert np.quantile(off, 0.95) < 0.05


def test_stdout_is_left_to_answers(tmp_path: Path) -> None:
    words = ["data", "synth", "scenes", str(tmp_path / "s"), "--count", "2", "--size", "32"]
    command = [sys.executable, "-m", "mimsuite", *words, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["modality"] == "scenes"


def test_without_pybullet_the_error_names_the_pip_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "pybullet", None)
    assert main(["data", "synth", "scenes", str(tmp_path / "s"), "--count", "2"]) == 2
    assert "pip install 'mimsuite[scenes]'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [(["--size", "16"], "32 or more"), (["--parts"], "--parts"), (["--photos", "x"], "--photos")],
)
def test_what_scenes_do_not_take(
    words: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["data", "synth", "scenes", str(tmp_path / "s"), *words]) == 2
    assert message in capsys.readouterr().err
