"""The first hour with satellite images of one's own: look, measure, pack, pretrain, see what is
rebuilt, probe, fine-tune, evaluate."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from mimsuite.cli.main import app
from mimsuite.data.synthetic.places import CLASSES, NAMES, NO_DATA, scene
from tests import needs
from tests.data.test_bands import geotiff

needs.module("pyproj")


def run(*words: object) -> str:
    done = CliRunner().invoke(app, [*map(str, words)], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


@pytest.mark.slow
def test_from_a_folder_of_geotiffs_to_a_classifier(tmp_path: Path) -> None:
    folder, shards, out = tmp_path / "scenes", tmp_path / "shards", tmp_path / "run"
    days = ("20210301", "20210501", "20210701")
    for number in range(24):
        name, split = CLASSES[number % 4], "test" if number < 8 else "train"
        values = scene(name, 48, np.random.default_rng(number))
        for day, raster in zip(days, values, strict=True):
            path = folder / split / name / f"place{number}" / f"B_{day}.tif"
            geotiff(path, raster, names=NAMES, no_data=f"{NO_DATA:g}")
    (folder / "train" / "crop" / "broken.tif").write_bytes(b"II*\0 not a raster")
    seen = json.loads(run("data", "inspect", folder, "--sheet", tmp_path / "s.png", "--json"))
    assert seen["modality"] == "bands"
    assert seen["splits"]["train"]["dates"]["max"] == 3
    told = json.loads(run("data", "stats", folder, "--json"))
    assert told["channels"] == list(NAMES)
    assert min(told["min"]) > NO_DATA
    run("data", "pack", folder, shards)
    keys = [f"augment.{key}={told[key]}" for key in ("mean", "std")]
    small = ("--smoke", "train.global_batch=4", "train.device=cpu")
    run("pretrain", "bands/mae-tiny-places", *small, *keys, "--data", shards, "--out", out)
    assert (out / "DONE").exists()
    run("reconstruct", out, "--input", shards, "--out", tmp_path / "drawn", "--n", 2)
    grid = np.asarray(Image.open(tmp_path / "drawn" / "grid.png"))
    assert (grid == 128).all(axis=2).any()  # what was not observed is grey
    probe = json.loads(run("linear-probe", out, "--data", shards, "--json"))
    assert 0 <= probe["accuracy"]["pretrained"] <= 1
    tuned = ("--smoke", "train.global_batch=4", "train.device=cpu")
    run("finetune", out, "--data", shards, *tuned, "--out", tmp_path / "tuned")
    trained = json.loads(run("evaluate", tmp_path / "tuned" / "pretrained", "--json"))
    assert 0 <= trained["accuracy"] <= 1
