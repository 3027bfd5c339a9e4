"""Weights made by other libraries: their own forward gave the expected tokens."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from mimsuite.batch import Batch
from mimsuite.checkpoints import open_model
from mimsuite.cli.main import main

CASES = Path(__file__).parent
CLOSE = {"atol": 1e-4, "rtol": 0.0}


def tokens(path: Path, images: Tensor) -> Tensor:
    """(B, 1 + N, D), class token first."""
    with torch.no_grad():
        found = open_model(path).method.encoder.encode(Batch.of_views({"image": images}))
    return torch.cat([found.cls, found.tokens], dim=1)


@pytest.mark.parametrize(
    "name",
    [
        *("weights-hf-vitmae", "weights-hf-vitmae/model.safetensors"),
        *("weights-hf-vitmae-bin", "weights-hf-vitmae-bin/pytorch_model.bin"),
    ],
)
def test_vit_mae_of_transformers(name: str) -> None:
    expected = load_file(CASES / "weights-hf-vitmae" / "expected.safetensors")
    found = tokens(CASES / name, expected["pixel_values"])
    assert found.shape == (2, 17, 32)
    torch.testing.assert_close(found, expected["last_hidden_state"], **CLOSE)
    opened = open_model(CASES / name)
    assert opened.resolved.recipe.model.encoder.heads == 2
    assert opened.resolved.recipe.model.decoder.heads == 2
    assert opened.has_decoder


def test_numbers_of_numpy_beside_the_weights() -> None:
    folder = CASES / "weights-numpy-scalar"
    expected = load_file(folder / "expected.safetensors")
    path = folder / "checkpoint.pth"
    torch.testing.assert_close(
        tokens(path, expected["pixel_values"]), expected["features"], **CLOSE
    )
    assert "dropped: epoch, best_acc" in open_model(path).notes


def test_the_commands_take_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    name = "weights-hf-vitmae-bin/pytorch_model.bin"
    assert main(["import", str(CASES / name), "--json"]) == 0
    made = tmp_path / f"{name.partition('/')[0]}.safetensors"
    assert json.loads(capsys.readouterr().out)["out"] == made.name
    expected = load_file(CASES / "weights-hf-vitmae" / "expected.safetensors")
    again = tokens(made, expected["pixel_values"])
    torch.testing.assert_close(again, expected["last_hidden_state"], **CLOSE)
    name = "weights-hf-vitmae"
    sizes = ["image_size=32", "patch_size=8", "width=32", "depth=2", "heads=2", "mlp_ratio=2.0"]
    keys = [f"model.encoder.{size}" for size in sizes]
    keys += ["model.encoder.in_channels=3", "data.channels=rgb"]
    keys += ["augment.mean=[0.5,0.5,0.5]", "augment.std=[0.5,0.5,0.5]"]
    keys += ["model.decoder.width=16", "model.decoder.depth=1", "model.decoder.heads=2"]
    keys += ["model.decoder.mlp_ratio=2.0", "train.device=cpu", "schedule.epochs=1"]
    command = ["pretrain", "image/mae-tiny-fashion", "--smoke", "--init-from", str(CASES / name)]
    assert main([*command, "--out", "run", *keys]) == 0, capsys.readouterr().err
    shown = capsys.readouterr()
    assert "encoder: 30 tensors loaded" in shown.out + shown.err
