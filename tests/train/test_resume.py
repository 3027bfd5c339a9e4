"""Killed at any moment and resumed, a run ends with the very bits of an uninterrupted one."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

COMMAND = [
    *(sys.executable, "-m", "mimsuite", "pretrain", "image/mae-tiny-fashion", "--smoke"),
    *("data.limit=1000", "train.global_batch=100", "schedule.epochs=4"),
    *("checkpoint.every_steps=3", "log.every_steps=1"),
    *("model.encoder.drop_path=0.2", "--device", "cpu"),
    *("log.signals_every_epochs=0.5", "log.signals_samples=16"),
    *("log.probe_every_epochs=0.5", "log.probe_samples=40", "train.ema=0.9"),
]


def start(out: Path, *more: str) -> subprocess.Popen[str]:
    command = [*COMMAND, "--out", str(out), *more]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(out: Path, *more: str) -> None:
    process = start(out, *more)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors


def lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def final(run: Path) -> dict[str, bytes]:
    newest = max((run / "checkpoints").glob("step-*"))
    return {file.name: file.read_bytes() for file in sorted(newest.glob("*.safetensors"))}


def losses(run: Path) -> list[tuple[object, ...]]:
    names = ("step", "loss", "grad_norm", "rankme", "lidar", "probe/knn", "probe/linear")
    return [tuple(map(row.get, names)) for row in lines(run / "metrics.jsonl")]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("runs") / "whole"
    finish(run)
    return run


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_resume_equals_the_uninterrupted_run(
    uninterrupted: Path, tmp_path: Path, how: signal.Signals
) -> None:
    total = losses(uninterrupted)[-1][0]
    assert isinstance(total, int)
    run = tmp_path / "killed"
    process = start(run)
    after = random.Random().randrange(4, total - 2)  # any step will do: no need to fix the draw
    metrics = run / "metrics.jsonl"
    deadline = time.monotonic() + 120
    while True:
        ended = process.poll() is not None or time.monotonic() > deadline
        if metrics.exists() and len(metrics.read_text().splitlines()) >= after:
            break
        assert not ended, process.communicate()[1]
        time.sleep(0.005)
    process.send_signal(how)
    process.communicate(timeout=60)
    if how == signal.SIGTERM:
        assert process.returncode == 75
        assert (run / "PREEMPTED").exists()
    finish(run, "--resume", "auto")
    resumes = [row["step"] for row in lines(run / "events.jsonl") if row["event"] == "resume"]
    assert len(resumes) == 1
    assert 0 < int(str(resumes[0])) <= total
    ours, wanted = final(run), final(uninterrupted)
    assert [name for name in wanted if ours[name] != wanted[name]] == []
    assert losses(run) == losses(uninterrupted)
    assert (run / "DONE").exists()
