"""Bad input through the command line: one line, a documented exit code, nothing lost.

The rows are what users get wrong first. Each names the culprit and the mend, and none shows a
traceback or leaves a run directory behind.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from mimsuite.cli.main import main
from tests import needs

RECIPE = "image/mae-tiny-fashion"
SMALL = ("--smoke", "schedule.epochs=1", "train.global_batch=4", "train.device=cpu")


def good_images(folder: Path, count: int = 8) -> Path:
    folder.mkdir(parents=True)
    for number in range(count):
        shade = (number * 25, 200 - number * 20, 90)
        Image.new("RGB", (40, 40), shade).save(folder / f"{number}.png")
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """A finished run of a few steps."""
    folder = tmp_path_factory.mktemp("bad-input")
    data = good_images(folder / "photos")
    assert (
        main(["pretrain", RECIPE, "--data", str(data), "--out", str(folder / "run"), *SMALL]) == 0
    )
    return folder / "run"


@pytest.fixture
def refused(capfd):
    """Run a command that must be refused; returns its one line."""

    def check(code: int, *words: object) -> str:
        capfd.readouterr()
        assert main([str(word) for word in words]) == code
        out, err = capfd.readouterr()
        assert out == ""
        lines = err.splitlines()
        assert len(lines) == 1, err
        assert lines[0].startswith("error: ")
        return lines[0]

    return check


@pytest.mark.parametrize(
    ("words", "culprit", "mend"),
    [
        (["image/mae-tiny-fashon"], "image/mae-tiny-fashon", "did you mean"),
        ([RECIPE, "mask.ration=0.5"], "mask.ration", "did you mean"),
        ([RECIPE, "schedule.epochs=many"], "schedule.epochs", "expected a number"),
        ([RECIPE, "mask.ratio=1.0"], "mask.ratio", "below 1"),
        ([RECIPE, "model.encoder.patch_size=5"], "patch_size", "28"),
        ([RECIPE, "train.device=quantum"], "quantum", "auto, cpu, cuda or mps"),
        ([RECIPE, "--data", "pipe:cat x.tar"], "pipe:", ""),
    ],
)
def test_a_wrong_recipe_or_key(words, culprit, mend, refused, tmp_path):
    out = tmp_path / "run"
    line = refused(2, "pretrain", *words, "--out", out)
    assert culprit in line
    assert mend.lower() in line.lower()
    assert not out.exists()


def test_a_wrong_key_in_a_file_is_named_with_its_line(refused, tmp_path):
    recipe = tmp_path / "mine.yaml"
    recipe.write_text(f"base: {RECIPE}\nmask:\n  ratio: 0.5\n  retio: 0.6\n")
    line = refused(2, "pretrain", recipe, "--out", tmp_path / "run")
    assert "mine.yaml:4" in line
    assert "mask.ratio" in line


@pytest.mark.parametrize("made", [False, True], ids=["missing", "empty"])
def test_a_missing_or_empty_folder(made, refused, tmp_path):
    data, out = tmp_path / "photos", tmp_path / "run"
    if made:
        data.mkdir()
    line = refused(3 if made else 2, "pretrain", RECIPE, "--data", data, "--out", out, *SMALL)
    assert str(data) in line
    assert not out.exists()


def test_one_unreadable_image_among_good_ones_is_counted_named_and_replaced(tmp_path, capfd):
    data, out = good_images(tmp_path / "photos"), tmp_path / "run"
    (data / "4.png").write_bytes((data / "4.png").read_bytes()[:40])
    assert main(["pretrain", RECIPE, "--data", str(data), "--out", str(out), *SMALL]) == 0
    shown = capfd.readouterr().err
    warnings = [line for line in shown.splitlines() if line.startswith("warning: ")]
    assert len(warnings) == 2
    assert warnings[0].startswith(f"warning: replaced 4.png in {data}: ")
    assert "1 corrupt sample was replaced" in warnings[1]
    events = [json.loads(line) for line in (out / "events.jsonl").read_text().splitlines()]
    damaged = [event for event in events if "4.png" in json.dumps(event)]
    assert len(damaged) == 1
    assert (out / "DONE").exists()


def test_a_checkpoint_of_another_method(run, refused, tmp_path):
    # The weights of a classifier do not make a masked autoencoder.
    tuned = tmp_path / "tuned"
    data = tmp_path / "labelled"
    for split in ("train", "test"):
        for label in ("a", "b"):
            good_images(data / split / label, 4)
    words = ["finetune", run, "--data", data, "--out", tuned, "data.per_class=null", *SMALL]
    assert main([str(word) for word in words]) == 0
    line = refused(
        2, "pretrain", RECIPE, "--data", data, "--out", tmp_path / "run",
        "--resume", newest(tuned / "pretrained"), *SMALL,
    )  # fmt: skip
    assert "classify" in line
    assert "mae" in line
    assert not (tmp_path / "run").exists()


def newest(folder: Path) -> Path:
    return max((folder / "checkpoints").iterdir())


def test_a_truncated_checkpoint(run, refused, tmp_path):
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    checkpoint = newest(copy)
    for damaged in checkpoint.iterdir():
        if damaged.suffix == ".safetensors":
            damaged.write_bytes(damaged.read_bytes()[:-10])
    line = refused(2, "linear-probe", checkpoint)
    assert checkpoint.name in line
    assert "use an older one" in line
    line = refused(2, "pretrain", RECIPE, "--out", tmp_path / "on", "--resume", checkpoint, *SMALL)
    assert checkpoint.name in line
    assert not (tmp_path / "on").exists()


def test_a_truncated_weights_file(refused, tmp_path):
    whole, half = tmp_path / "whole.pth", tmp_path / "half.pth"
    torch.save({"model": {"cls_token": torch.zeros(1, 1, 768)}}, whole)
    half.write_bytes(whole.read_bytes()[:-300])
    out = tmp_path / "run"
    line = refused(2, "pretrain", RECIPE, "--init-from", half, "--out", out, *SMALL)
    assert "half.pth" in line
    assert "get it anew" in line
    assert not out.exists()


def test_an_existing_run_directory_is_left_as_it_was(run, refused):
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
    line = refused(2, "pretrain", RECIPE, "--out", run, *SMALL)
    assert str(run) in line
    assert "--resume auto" in line
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*")} == before


@pytest.mark.parametrize(
    ("options", "words"),
    [("ro", ("read-only", "--out")), ("size=300k", ("no space", "--resume auto"))],
    ids=["read-only", "full"],
)
def test_a_disk_that_takes_nothing(options, words, tmp_path):
    needs.mounts()
    disk = tmp_path / "disk"
    disk.mkdir()
    command = [sys.executable, "-m", "mimsuite", "pretrain", RECIPE, "--out", str(disk / "run")]
    script = f'mount -t tmpfs -o {options} tmpfs "$0" && exec "$@"'
    done = subprocess.run(
        ["unshare", "--map-root-user", "--mount", "sh", "-c", script, str(disk), *command, *SMALL],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2, done.stderr
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert "Traceback" not in done.stderr
    assert str(disk) in errors[0]
    assert all(word in errors[0].lower() for word in words)
