"""The first hour with scans of one's own: look, pack, pretrain, see what is rebuilt, fine-tune on
label maps, score."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from PIL import Image
from typer.testing import CliRunner

from mimsuite.cli.main import app
from mimsuite.data.synthetic.synth import synthesise
from tests import needs

needs.module("nibabel")
needs.module("scipy")


def run(*words: object) -> str:
    done = CliRunner().invoke(app, [*map(str, words)], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


@pytest.mark.parametrize("full", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_from_a_folder_of_scans_to_scores_of_a_segmentation(full: bool, tmp_path: Path) -> None:
    """In full with the baseline from scratch, and scored on the unpacked files too."""
    folder, shards, out = tmp_path / "scans", tmp_path / "shards", tmp_path / "run"
    synthesise("scans", folder, count=12, size=24, parts=True)
    seen = json.loads(run("data", "inspect", folder, "--sheet", tmp_path / "s.png", "--json"))
    assert seen["modality"] == "scans"
    assert seen["splits"]["train"]["x"]["max"] == 24
    assert set(seen["splits"]["train"]["voxel classes"]) <= {"1, 2, 3, 4", "1, 2, 4"}
    run("data", "pack", folder, shards, "--spacing", "8")
    recipe = ("volume/mae3d-tiny-phantoms", "--smoke", "train.global_batch=3", "augment.spacing=8")
    run("pretrain", *recipe, "--data", shards, "--out", out)
    assert (out / "DONE").exists()
    run("reconstruct", out, "--input", folder, "--out", tmp_path / "drawn", "--n", 2)
    drawn = sorted((tmp_path / "drawn").glob("*.png"))
    assert drawn
    assert Image.open(drawn[0]).width > 3 * 3 * 32  # three panels of three slices
    small = ("--smoke", "train.global_batch=3")
    tuned = tmp_path / "tuned"
    beside = ["--baselines"] if full else []
    told = run("finetune", out, *small, "--data", shards, "--out", tuned, *beside, "--json")
    found = json.loads(told)
    assert found["recipe"] == "volume/segment-tiny-phantoms"
    assert (found["dice"]["from_scratch"] is not None) == full
    assert found["hd95"]["pretrained"] >= 0
    kept = yaml.safe_load((tuned / "pretrained/config.yaml").read_text())
    assert kept["augment"]["spacing"] == 8.0  # that of pretraining
    assert [*(tuned / "pretrained/images").glob("reconstruction-*.png")]  # slices with labels
    for source in (shards, folder) if full else (shards,):
        scored = json.loads(run("evaluate", tuned / "pretrained", "--data", source, "--json"))
        assert scored["dice"] == pytest.approx(found["dice"]["pretrained"], abs=0.02)
        assert set(scored["per_class"]) == {"body", "lung", "liver", "bone"}
