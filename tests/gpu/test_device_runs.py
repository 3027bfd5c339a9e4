"""Whole runs on a device: finite, resumable to the bit, alike on one device and on two."""

from __future__ import annotations

import json
import math
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from mimsuite import config
from mimsuite.data import open_training_set

STEPS, BATCH = 100, 16
TINY = "image/mae-tiny-fashion"


def mimsuite(*words: object, code: int = 0) -> str:
    command = [sys.executable, "-m", "mimsuite", *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == code, done.stderr
    return done.stdout


def rows(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


# A recipe of each modality, and the set that `data synth` makes for it.
RECIPES = {
    "image": ("image/mae-tiny-fashion", ()),
    "video": ("video/videomae2-tiny-motion", ("video",)),
    "points": ("points/mae-tiny-furniture", ()),
    "volume": ("volume/nerf-mae-tiny-rooms", ("grids", "--size", 16)),
}


@pytest.mark.parametrize("modality", RECIPES)
def test_a_hundred_steps_are_finite(modality, machine, tmp_path):
    name, made = RECIPES[modality]
    source = []
    if made:
        folder = tmp_path / "set"
        mimsuite("data", "synth", made[0], folder, "--count", 4 * BATCH, *made[1:])
        source = [f"data.source={folder}"]
    samples = len(open_training_set(config.load(name, source, smoke=True).recipe))
    epochs = STEPS / (samples // BATCH)
    words = ["--smoke", *source, f"schedule.epochs={epochs}", "schedule.warmup_epochs=0"]
    words += [f"train.global_batch={BATCH}", "train.micro_batch=null"]
    run = tmp_path / "run"
    mimsuite("pretrain", name, *words, "log.every_steps=1", "--device", machine, "--out", run)
    found = rows(run)
    assert len(found) == STEPS
    assert all(math.isfinite(row["loss"]) and math.isfinite(row["grad_norm"]) for row in found)
    assert sum(row["skipped"] for row in found) == 0
    first, last = (sum(row["loss"] for row in part) for part in (found[:10], found[-10:]))
    assert last < first


def test_resuming_gives_the_very_bits(machine, tmp_path):
    whole, part = tmp_path / "whole", tmp_path / "part"
    words = [
        "pretrain",
        TINY,
        "--smoke",
        "data.limit=256",
        "train.global_batch=32",
        "train.ema=0.9",
    ]
    words += ["model.encoder.drop_path=0.2", "schedule.epochs=1", "log.every_steps=1"]
    words += ["checkpoint.every_steps=4", "checkpoint.keep=9", "--device", machine]
    mimsuite(*words, "--out", whole)
    shutil.copytree(whole, part)
    shutil.rmtree(part / "checkpoints" / "step-00000008")
    (part / "DONE").unlink()
    mimsuite(*words, "--out", part, "--resume", "auto")
    events = [json.loads(line) for line in (part / "events.jsonl").read_text().splitlines()]
    assert [event["step"] for event in events if event["event"] == "resume"] == [4]
    for file in (whole / "checkpoints" / "step-00000008").glob("*.safetensors"):
        ours = part / "checkpoints" / "step-00000008" / file.name
        assert ours.read_bytes() == file.read_bytes(), file.name
    figures = ("step", "loss", "grad_norm")
    ours, wanted = ([[row[f] for f in figures] for row in rows(run)] for run in (part, whole))
    assert ours == wanted


@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_two_devices_train_as_one(parallel, two, tmp_path):
    words = ["pretrain", TINY, "--smoke", "data.limit=256", "train.global_batch=32"]
    words += ["model.encoder.drop_path=0.2", "schedule.epochs=1", "log.every_steps=1"]
    words += [f"train.parallel={parallel}", "train.precision=fp32"]
    one, both = tmp_path / "one", tmp_path / "both"
    cuda = "--gpus" in two
    mimsuite(*words, "--device", "cuda" if cuda else "cpu", "--out", one)
    mimsuite(*words, *two, "--out", both)
    losses, wanted = ([row["loss"] for row in rows(run)] for run in (both, one))
    assert losses == pytest.approx(wanted, rel=1e-4 if cuda else 1e-6)


def test_the_share_of_the_peak_is_reported(machine):
    words = ["bench", "step", TINY, "--batch", 8, "--rounds", 2, "--json"]
    figures = json.loads(mimsuite(*words, f"train.device={machine}"))
    print(f"\n{TINY} on {figures['device']}: {figures['share_of_gemm']:.3f} of the GEMM peak")
    assert 0 < figures["share_of_gemm"] < 1.2
    assert figures["precision"] == ("fp32" if machine.type == "cpu" else figures["precision"])
    if machine.type == "cuda":
        assert figures["device"] == torch.cuda.get_device_name()


@pytest.mark.gpu
def test_a_vit_b_reaches_a_fair_share_of_the_peak():
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    words = ["bench", "step", "image/mae-vitb16-in1k", "--batch", 64, "--rounds", 5, "--json"]
    figures = json.loads(mimsuite(*words))
    print(f"\nViT-B: {figures['share_of_gemm']:.3f} of {figures['gemm_gflops'] / 1e3:.0f} TFLOP/s")
    assert figures["share_of_gemm"] > 0.15
