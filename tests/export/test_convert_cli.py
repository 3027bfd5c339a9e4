from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from mimsuite.checkpoints import open_model
from mimsuite.cli.convert import FormatName
from mimsuite.cli.main import main
from mimsuite.export import FORMATS


@pytest.fixture
def run(tmp_path: Path, mae: Any, run_of: Any) -> Path:
    return run_of(tmp_path / "run", *mae())


def test_formats_are_those_of_the_package() -> None:
    assert [name.value for name in FormatName] == list(FORMATS)


def test_export(tmp_path: Path, run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "e.safetensors"
    assert main(["export", str(run), "--format", "timm", "--out", str(out)]) == 0
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "timm.models.VisionTransformer(img_size=32" in printed.err
    assert "norm.weight" in load_file(out)


def test_export_as_json(tmp_path: Path, run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "m.safetensors"
    words = ["export", str(run), "--format", "safetensors", "--out", str(out), "--json"]
    assert main(words) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["out"] == str(out)
    assert report["format"] == "safetensors"
    assert report["step"] == 7
    assert report["encoder"]["width"] == 32


def test_nothing_is_overwritten(
    tmp_path: Path, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "m.safetensors"
    out.write_text("mine")
    words = ["export", str(run), "--format", "safetensors", "--out", str(out)]
    assert main(words) == 2
    assert "--force" in capsys.readouterr().err
    assert out.read_text() == "mine"
    assert main([*words, "--force"]) == 0


def test_import_prints_what_was_found_and_dropped(
    tmp_path: Path, mae: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    _, method = mae()
    torch.save({"model": method.export_reference(), "optimizer": {}}, tmp_path / "m.pth")
    out = tmp_path / "m.safetensors"
    words = ["import", str(tmp_path / "m.pth"), "--out", str(out)]
    assert main(words) == 2
    assert "give --heads" in capsys.readouterr().err
    assert main([*words, "--heads", "4", "--decoder-heads", "4"]) == 0
    printed = capsys.readouterr().err
    assert "MAE encoder and decoder, 50 tensors" in printed
    assert "dropped: optimizer" in printed
    opened = open_model(out)
    assert opened.has_decoder
    ours = opened.method.state_dict()
    assert all(torch.equal(ours[name], tensor) for name, tensor in method.state_dict().items())


def test_where_results_go_by_themselves(
    tmp_path: Path, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["export", str(run), "--format", "reference"]) == 0
    assert main(["export", "run", "--format", "hf"]) == 0
    assert {p.name for p in (run / "export").iterdir()} == {"run-reference.pth", "run-hf"}
    assert main(["export", str(run / "checkpoints" / "step-00000007"), "--format", "timm"]) == 0
    assert (tmp_path / "step-00000007-timm.safetensors").is_file()
    assert main(["import", "run/export/run-reference.pth"]) == 0
    assert (tmp_path / "run-reference.safetensors").is_file()
    assert main(["import", "run-reference.safetensors"]) == 2  # it would replace its own source


def test_import_with_an_image_size(tmp_path: Path, classifier: Any) -> None:
    _, method = classifier(model__encoder__image_size=[16, 48])
    with torch.no_grad():
        method.encoder.pos_embed += 0.1
    torch.save(method.export_reference(), tmp_path / "c.pth")
    words = ["import", str(tmp_path / "c.pth"), "--out", str(tmp_path / "c.safetensors")]
    assert main([*words, "--heads", "4"]) == 2
    assert main([*words, "--heads", "4", "--image-size", "16", "48"]) == 0


@pytest.mark.parametrize("content", [b"", b"\x80\x02}q\x00.", b"PK\x03\x04", b"<html>"])
def test_bad_files_are_one_line_and_exit_2(
    tmp_path: Path, content: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "m.pth").write_bytes(content)
    words = ["import", str(tmp_path / "m.pth"), "--out", str(tmp_path / "m.safetensors")]
    assert main(words) == 2
    printed = capsys.readouterr().err.strip()
    assert printed.startswith("error: ")
    assert len(printed.splitlines()) == 1
