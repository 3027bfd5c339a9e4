"""The first hour with scans of one's own: look, pack, pretrain, see what is rebuilt."""

from __future__ import annotations

import json
from pathlib import Path

from PIL import Image
from typer.testing import CliRunner

from mimsuite.cli.main import app
from mimsuite.data.made.synth import synthesise
from tests import needs

needs.module("nibabel")
needs.module("scipy")


def run(*words: object) -> str:
    done = CliRunner().invoke(app, [*map(str, words)], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


def test_from_a_folder_of_scans_to_rebuilt_slices(tmp_path: Path) -> None:
    folder, shards, out = tmp_path / "scans", tmp_path / "shards", tmp_path / "run"
    synthesise("scans", folder, count=12, size=24)
    seen = json.loads(run("data", "inspect", folder, "--sheet", tmp_path / "s.png", "--json"))
    assert seen["modality"] == "scans"
    assert seen["splits"]["train"]["x"]["max"] == 24
    run("data", "pack", folder, shards, "--spacing", "8")
    recipe = ("volume/mae3d-tiny-phantoms", "--smoke", "train.global_batch=3", "augment.spacing=8")
    run("pretrain", *recipe, "--data", shards, "--out", out)
    assert (out / "DONE").exists()
    run("reconstruct", out, "--input", folder, "--out", tmp_path / "drawn", "--n", 2)
    drawn = sorted((tmp_path / "drawn").glob("*.png"))
    assert drawn
    assert Image.open(drawn[0]).width > 3 * 3 * 32  # three panels of three slices
