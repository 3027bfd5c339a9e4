from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from mimsuite import config
from mimsuite.cli.main import main
from mimsuite.methods import build
from mimsuite.train.checkpoint import CheckpointState, save

RECIPE = "image/mae-vitb16-in1k"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    resolved = config.load(RECIPE, smoke=True)
    state = build(resolved.recipe).state_dict()
    root = tmp_path_factory.mktemp("run") / "checkpoints"
    return save(root, CheckpointState(step=5, document=resolved.document, model=state))


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    for name in ("ants", "bees"):
        (folder / name).mkdir(parents=True)
        for i in range(6):
            array = np.random.default_rng(i).integers(0, 255, (80, 90, 3), dtype=np.uint8)
            Image.fromarray(array).save(folder / name / f"{i} [x].png")
    return folder


def test_files_make_a_grid_and_one_picture_each(checkpoint, photos, tmp_path, capsys):
    files = sorted(map(str, photos.rglob("*.png")))[:3]
    out = tmp_path / "out"
    command = ["reconstruct", str(checkpoint), "--input", *files, "--out", str(out), "--json"]
    assert main(command) == 0
    answer = json.loads(capsys.readouterr().out)
    assert [path.removeprefix(f"{out}/") for path in answer["samples"]] == [
        "01-0_x_.png", "02-1_x_.png", "03-2_x_.png",
    ]  # fmt: skip
    grid = Image.open(answer["grid"]).size
    one = Image.open(answer["samples"][0]).size
    assert grid[0] == one[0] > 4 * 96
    assert grid[1] > 2.5 * (one[1] - 60)


def test_samples_are_spread_over_a_source(checkpoint, photos, tmp_path, capsys):
    first, second = tmp_path / "first", tmp_path / "second"
    for out, seed in ((first, "0"), (second, "1")):
        command = ["reconstruct", str(checkpoint), "--input", str(photos), "--out", str(out)]
        assert main([*command, "--n", "2", "--seed", seed]) == 0
    assert sorted(path.name for path in first.iterdir()) == [
        "01-0_x_.png",
        "02-5_x_.png",
        "grid.png",
    ]
    assert capsys.readouterr().out == ""
    assert (first / "grid.png").read_bytes() != (second / "grid.png").read_bytes()


def test_another_mask_ratio(checkpoint, photos, tmp_path):
    command = ["reconstruct", str(checkpoint), "--input", str(photos), "--n", "1"]
    for ratio in ("0.25", "0.8"):
        assert main([*command, "--out", str(tmp_path / ratio), "--ratio", ratio]) == 0
    little, much = (
        np.asarray(Image.open(tmp_path / ratio / "grid.png")) for ratio in ("0.25", "0.8")
    )
    assert little.shape == much.shape
    assert (little != much).any()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--input", "nowhere"], "there is no such"),
        (["--input", "photos", "photos"], "--input takes image files, or one source"),
        (["--input", "photos", "--ratio", "1.5"], "mask.ratio"),
        (["--input", "photos", "--out", "photos/ants/0 [x].png"], "cannot write"),
        (["--input", "photos", "--split", "best"], "best"),
    ],
)
def test_faults_are_one_line(checkpoint, photos, monkeypatch, capsys, options, message):
    monkeypatch.chdir(photos.parent)
    command = ["reconstruct", str(checkpoint), "--out", "out", "--n", "1", *options]
    assert main(command) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert message in line


def test_an_encoder_alone_cannot_reconstruct(photos, tmp_path, capsys, monkeypatch, checkpoint):
    from dataclasses import replace

    from mimsuite import checkpoints
    from mimsuite.methods import Method

    opened = replace(checkpoints.open_model(checkpoint), has_decoder=False)
    monkeypatch.setattr(checkpoints, "open_model", lambda path: opened)
    command = ["reconstruct", "encoder.pth", "--input", str(photos), "--out", str(tmp_path / "o")]
    assert main(command) == 2
    assert "holds an encoder only, its decoder is missing" in capsys.readouterr().err
    monkeypatch.setattr(type(opened.method), "panels", Method.panels)
    assert main(command) == 2
    assert "method 'mae' rebuilds nothing" in capsys.readouterr().err


def test_an_unreadable_file_is_a_data_error(checkpoint, tmp_path, capsys):
    (tmp_path / "broken.png").write_bytes(b"\x89PNG nonsense")
    command = ["reconstruct", str(checkpoint), "--input", str(tmp_path / "broken.png")]
    assert main([*command, "--out", str(tmp_path / "out")]) == 3
    assert "broken.png" in capsys.readouterr().err
