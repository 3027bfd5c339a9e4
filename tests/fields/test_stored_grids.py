"""Published layouts into files that say what they hold, and figures of stored grids."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mimsuite.cli.main import main
from mimsuite.data import open_source
from mimsuite.data.synthetic import furniture
from mimsuite.data.volume import files as grids
from mimsuite.errors import DataError, UserError
from mimsuite.fields.convert import Conversion, convert_scenes
from mimsuite.fields.inspect import guess_up, inspect_grid
from mimsuite.noise import keyed_rng


def published(folder: Path, name: str, sides: tuple[int, int, int] = (4, 6, 8)) -> np.ndarray:
    """A flat y-up file, x fastest; returns the (x, y, z, 4) grid."""
    grid = np.random.default_rng(len(name)).random((*sides, 4), dtype=np.float32)
    flat = grid.transpose(2, 1, 0, 3).reshape(-1, 4)
    corner = np.array([1.0, 2.0, 3.0], np.float32)
    (folder / "features").mkdir(parents=True, exist_ok=True)
    file = folder / "features" / f"{name}.npz"
    np.savez(file, rgbsigma=flat, resolution=np.array(sides), bbox_min=-corner, bbox_max=corner)
    (folder / "obb").mkdir(exist_ok=True)
    np.save(folder / "obb" / f"{name}.npy", np.array([[4.0, 2, 3, 3, 2, 2, 0.5]]))
    return grid


def test_published_scenes_become_a_source_with_splits(tmp_path: Path) -> None:
    kept = {name: published(tmp_path, name) for name in ("one", "second", "third9")}
    np.savez(tmp_path / "split.npz", train_scenes=["one", "third9"], test_scenes=["second"])
    code = main(
        [
            *("data", "nerf-grid-convert", str(tmp_path / "features"), str(tmp_path / "out")),
            *("--density", "log", "--up", "y", "--boxes", str(tmp_path / "obb")),
            *("--split", str(tmp_path / "split.npz")),
        ]
    )
    assert code == 0
    stored = grids.read((tmp_path / "out/train/one.npz").read_bytes())
    assert stored.density_kind == "log"
    assert stored.delta == pytest.approx(0.01)
    assert np.array_equal(stored.values, kept["one"].transpose(2, 0, 1, 3))  # (z, x, y)
    assert stored.boxes is not None
    assert stored.boxes.tolist() == [[4, 2, 3, 3, 2, 2, 0.5]]
    with np.load(tmp_path / "out/train/one.npz", allow_pickle=False) as arrays:
        assert arrays["bbox_max"].tolist() == [3, 1, 2]
    source: Any = open_source(str(tmp_path / "out"), modality="grids")
    assert len(source) == 2
    assert source.decode(source.read(0, 0)).boxes.shape == (1, 7)


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"boxes": Path("nowhere")}, "cannot read nowhere"),
        ({"labels": "obb"}, "labels of shape"),
    ],
)
def test_what_does_not_fit_is_named(tmp_path: Path, change: dict[str, Any], fault: str) -> None:
    published(tmp_path, "one")
    change = {key: tmp_path / value if value == "obb" else value for key, value in change.items()}
    with pytest.raises(DataError, match=fault):
        convert_scenes(tmp_path / "features", tmp_path / "out", Conversion("log", **change))


def test_bad_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    published(tmp_path, "one")
    with pytest.raises(UserError, match=r"no \.npz file there"):
        convert_scenes(tmp_path / "empty", tmp_path / "out", Conversion("log"))
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    with pytest.raises(UserError, match="is there already"):
        convert_scenes(tmp_path / "features", tmp_path / "full", Conversion("log"))
    np.savez(tmp_path / "split.npz", train_scenes=["other"])
    with pytest.raises(DataError, match="names the scene 'other'"):
        convert_scenes(
            tmp_path / "features", tmp_path / "out", Conversion("log"), tmp_path / "split.npz"
        )
    file = str(tmp_path / "features" / "one.npz")
    assert main(["data", "nerf-grid-check", file]) == 2
    assert "give --density log or linear" in capsys.readouterr().err
    assert main(["data", "nerf-grid-check", file, "--density", "wood"]) == 2
    assert main(["data", "nerf-grid-check", str(tmp_path / "none.npz")]) == 3
    np.savez(tmp_path / "bytes.npz", rgbsigma=np.zeros((4, 4, 4, 4), np.uint8))
    with pytest.raises(DataError, match="uint8 values are opacity"):
        convert_scenes(tmp_path / "bytes.npz", tmp_path / "out", Conversion("log"))


def test_figures_and_slices_of_a_room(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "room.npz"
    file.write_bytes(furniture.make("tables", "train", 24, keyed_rng("a room")))
    out = tmp_path / "pictures"
    assert main(["data", "nerf-grid-check", str(file), "--slices", str(out), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["up_guess"] == "z"
    assert found["boxes"] >= 1
    assert found["labels"][:2] == [0, 1]
    assert sum(found["opacity_histogram"]) == pytest.approx(1.0, abs=1e-3)
    sizes = [Image.open(path).size for path in found["slices"]]
    assert len(sizes) == 3
    assert all(max(size) >= 384 for size in sizes)


def test_upwards_is_away_from_the_floor(tmp_path: Path) -> None:
    alpha = np.zeros((5, 6, 7))
    assert guess_up(alpha) == "?"
    alpha[:, -1] = 1.0
    assert guess_up(alpha) == "-y"
    np.savez(tmp_path / "alpha.npz", rgbsigma=np.zeros((4, 4, 4, 4), np.uint8))
    assert inspect_grid(tmp_path / "alpha.npz")["up_guess"] == "?"
