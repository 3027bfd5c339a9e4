"""A whole run in the shell that `salloc` opens, and one that resumes with other settings."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mimsuite import config
from mimsuite.cli.main import main
from tests.cluster.test_rank_info import SALLOC

SMALL = ("image/mae-tiny-fashion", "--smoke", "schedule.warmup_epochs=0", "data.limit=256")


def test_an_interactive_step_trains_as_one_process(monkeypatch, tmp_path, capsys):
    for name, value in SALLOC.items():
        monkeypatch.setenv(name, value)
    out = str(tmp_path / "run")
    assert main(["pretrain", *SMALL, "schedule.epochs=1", "--out", out]) == 0
    assert "this SLURM job has 4 tasks, here runs one process" in capsys.readouterr().err


def test_resuming_says_what_differs_from_before(tmp_path, capsys):
    out = tmp_path / "run"
    assert main(["pretrain", *SMALL, "schedule.epochs=1", "--out", str(out)]) == 0
    words = ["pretrain", *SMALL, "--out", str(out), "--resume", "auto", "schedule.epochs=2"]
    capsys.readouterr()
    assert main([*words, "optim.lr=1e-3", "mask.ratio=0.5"]) == 0
    said = capsys.readouterr().err
    lines = [
        "schedule.epochs: was 1.0, is now 2.0",
        "optim.lr: was 0.0015, is now 0.001",
        "mask.ratio: was 0.75, is now 0.5",
    ]
    for line in lines:
        assert said.count(line) == 1
        assert line in (out / "train.log").read_text()
    assert said.count("is now") == len(lines)
    assert main([*words, "optim.lr=1e-3", "mask.ratio=0.5"]) == 0  # nothing new
    assert "is now" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("overrides", "lines"),
    [
        ([], []),
        (["data.source=embedded:other"], ["data.source: was embedded:fashion-mnist, is now "]),
        (["augment.erase=0.25"], ["augment.erase: was 0.0, is now 0.25"]),
        (["checkpoint.every_minutes=null"], ["checkpoint.every_minutes: was "]),
    ],
)
def test_changes_are_told_by_key(overrides, lines):
    before = config.load("image/mae-tiny-fashion")
    found = config.load("image/mae-tiny-fashion", overrides).changed_since(before.document)
    assert len(found) == len(lines)
    assert all(line.startswith(start) for line, start in zip(found, lines, strict=True))


def test_a_key_that_the_earlier_version_lacked_counts_where_it_was_set():
    document = json.loads(json.dumps(config.load("image/mae-tiny-fashion").document))
    del document["augment"]["erase"], document["augment"]["jitter"]
    now = config.load("image/mae-tiny-fashion", ["augment.erase=0.5"])
    assert now.changed_since(document) == ["augment.erase: was -, is now 0.5"]


def test_no_folder_is_left(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["pretrain", "image/mae-tiny-fashion", r"--out=C:\runs\x"]) == 2
    assert not list(Path().iterdir())
