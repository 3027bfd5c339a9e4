"""Runs of three modalities, exported by the command line: right, or refused in one line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from mimsuite.checkpoints import open_model
from mimsuite.cli.main import main


@pytest.fixture(scope="module")
def run_of(tmp_path_factory: pytest.TempPathFactory) -> Any:
    runs: dict[str, Path] = {}

    def make(recipe: str) -> Path:
        if recipe not in runs:
            out = tmp_path_factory.mktemp("runs") / "run"
            assert main(["pretrain", recipe, "--smoke", "--out", str(out)]) == 0
            runs[recipe] = out
        return runs[recipe]

    return make


def test_cae_of_a_run_goes_to_timm_strictly(run_of: Any, tmp_path: Path, capsys: Any) -> None:
    run, out = run_of("image/cae-tiny-clipart"), tmp_path / "e.safetensors"
    assert main(["export", str(run), "--format", "timm", "--out", str(out), "--json"]) == 0
    import json

    lines = json.loads(capsys.readouterr().out)["use"]
    scope: dict[str, Any] = {}
    exec("\n".join(lines[:4]), scope)
    method = open_model(run).method
    images = torch.randn(2, *method.encoder.sample()[1])
    from mimsuite.batch import Batch

    with torch.no_grad():
        found = scope["model"].eval().forward_features(images)
        features = method.encode(Batch.of_images(images))
    expected = torch.cat([features.cls, features.tokens], dim=1)
    assert torch.allclose(found, expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("form", ["hf", "reference"])
def test_cae_of_a_run_goes_out(run_of: Any, tmp_path: Path, form: str) -> None:
    out = tmp_path / ("folder" if form == "hf" else "m.pth")
    run = run_of("image/cae-tiny-clipart")
    assert main(["export", str(run), "--format", form, "--out", str(out)]) == 0


def test_points_of_a_run_are_read_back(run_of: Any, tmp_path: Path) -> None:
    out, again = tmp_path / "m.pth", tmp_path / "again.safetensors"
    run = run_of("points/mae-tiny-furniture")
    assert main(["export", str(run), "--format", "reference", "--out", str(out)]) == 0
    assert main(["import", str(out), "--out", str(again)]) == 0
    assert open_model(again).has_decoder


def test_a_refusal_is_one_line_and_names_what_works(
    run_of: Any, tmp_path: Path, capsys: Any
) -> None:
    run, out = run_of("points/mae-tiny-furniture"), tmp_path / "m.safetensors"
    capsys.readouterr()
    assert main(["export", str(run), "--format", "timm", "--out", str(out)]) == 2
    said = capsys.readouterr().err
    assert "this model has safetensors, onnx, reference" in " ".join(said.split())
    assert "internal" not in said
    assert not out.exists()
