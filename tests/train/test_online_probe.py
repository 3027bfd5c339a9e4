"""Probes while training: figures that mean something, and training that does not notice them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mimsuite.cli.main import main
from mimsuite.report.curves import draw_curves

COMMAND = [
    *("pretrain", "image/mae-tiny-fashion", "--smoke", "--device", "cpu", "log.every_steps=2"),
    *("data.limit=300", "train.global_batch=25", "model.encoder.drop_path=0.2"),
]
PROBE = ["log.probe_every_epochs=0.5", "log.probe_samples=60"]


def run(out: Path, *more: str) -> list[dict]:
    assert main([*COMMAND, "--out", str(out), *more]) == 0
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def weights(out: Path) -> dict[str, bytes]:
    newest = max((out / "checkpoints").glob("step-*"))
    return {file.name: file.read_bytes() for file in newest.glob("*.safetensors")}


@pytest.mark.parametrize("extra", [(), ("train.ema=0.9",), ("data.workers=1",)])
def test_probes_change_no_bit_of_training(extra, tmp_path):
    with_probe = run(tmp_path / "with", *PROBE, *extra)
    without = run(tmp_path / "without", *extra)
    assert [(r["loss"], r["grad_norm"]) for r in with_probe] == [
        (r["loss"], r["grad_norm"]) for r in without
    ]
    assert weights(tmp_path / "with") == weights(tmp_path / "without")
    steps = [row["step"] for row in with_probe if "probe/knn" in row]
    assert steps == [6, 12, 18, 24]
    assert all(0.1 < row["probe/linear"] <= 1 for row in with_probe if "probe/linear" in row)


def test_curves_and_page_show_probes_and_signals(tmp_path):
    run(tmp_path / "a", *PROBE, "log.signals_every_epochs=1", "log.signals_samples=8")
    assert draw_curves(tmp_path / "a") is not None
    assert "linear probe while training" in (tmp_path / "a" / "report.html").read_text()


def folder(root: Path, classes: int) -> Path:
    rng = np.random.default_rng(0)
    for number in range(24):
        place = root / (f"c{number % classes}" if classes else "")
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (28, 28), dtype=np.uint8)).save(
            place / f"{number}.png"
        )
    return root


@pytest.mark.parametrize(("classes", "fault"), [(0, "log.probe_source"), (1, "one class")])
def test_data_that_cannot_be_probed_is_refused_before_anything_is_written(
    classes, fault, tmp_path, capsys
):
    data = folder(tmp_path / "photos", classes)
    out = tmp_path / "a"
    command = [*COMMAND, *PROBE, "train.global_batch=4", "--data", str(data), "--out", str(out)]
    assert main(command) == 3
    assert fault in capsys.readouterr().err
    assert not out.exists()


def test_unlabelled_data_is_probed_on_a_set_of_its_own_without_a_test_split(tmp_path):
    data, labelled = folder(tmp_path / "photos", 0), folder(tmp_path / "labelled", 3)
    rows = run(
        tmp_path / "a", *PROBE, "train.global_batch=4", f"log.probe_source={labelled}",
        "--data", str(data),
    )  # fmt: skip
    assert "probe/knn" in rows[-1]
