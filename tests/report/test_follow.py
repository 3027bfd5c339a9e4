"""`mimsuite runs show --follow` of a run of another process."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from mimsuite.cli.main import main
from mimsuite.report.follow import Tail, follow, has_ended

ROOT = Path(__file__).parents[2]
TRAIN = (
    "pretrain", "image/mae-tiny-fashion", "--smoke", "schedule.epochs=9000", "log.every_steps=1",
)  # fmt: skip


def start(*words: object, stderr: int = subprocess.PIPE) -> subprocess.Popen[str]:
    """With Ctrl-C as on a terminal: a job in the background, as these tests may be, ignores it."""
    command = [sys.executable, "-m", "mimsuite", *map(str, words)]
    heed = lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)  # noqa: E731
    return subprocess.Popen(command, cwd=ROOT, text=True, stderr=stderr, preexec_fn=heed)


@pytest.fixture
def run(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], Path]]:
    """A run that trains until it is told to stop."""
    out = tmp_path / "run"
    process = start(*TRAIN, "--out", out, stderr=subprocess.DEVNULL)
    try:
        metrics = out / "metrics.jsonl"
        deadline = time.monotonic() + 90
        while not (metrics.is_file() and metrics.stat().st_size) and time.monotonic() < deadline:
            time.sleep(0.1)
        yield process, out
    finally:
        process.kill()
        process.communicate()


def test_a_run_is_followed_to_its_end_and_ctrl_c_leaves_it(run) -> None:
    process, out = run
    follower = start("runs", "show", out, "--follow")
    steps = [int(follower.stderr.readline().split()[1].partition("/")[0]) for _ in range(3)]
    assert steps == [steps[0], steps[0] + 1, steps[0] + 2]
    follower.send_signal(signal.SIGINT)
    _, said = follower.communicate(timeout=30)
    assert follower.returncode == 130
    assert said.splitlines()[-1] == f"no longer followed: {out} is still running"
    assert process.poll() is None

    follower = start("runs", "show", out, "--follow")
    assert "loss" in follower.stderr.readline()
    process.send_signal(signal.SIGTERM)
    _, said = follower.communicate(timeout=60)
    assert follower.returncode == 0
    last = json.loads((out / "PREEMPTED").read_text())["step"]
    assert f"step {last}/" in said
    assert f"{out}: PREEMPTED" in said
    assert "--resume auto" in said.splitlines()[-1]


def test_new_rows_and_a_resumed_run(tmp_path: Path) -> None:
    file = tmp_path / "metrics.jsonl"
    tail = Tail(file)
    assert tail.rows() == []
    rows = [json.dumps({"step": step}) + "\n" for step in range(1, 7)]
    file.write_text("".join(rows[:4]) + rows[4][:5])  # the fifth is being written
    assert [row["step"] for row in tail.rows()] == [1, 2, 3, 4]
    with file.open("a") as more:
        more.write(rows[4][5:])
    assert tail.rows() == [{"step": 5}]
    cut = tmp_path / "cut"  # back to step 3, and then other figures
    cut.write_text("".join(rows[:3]) + json.dumps({"step": 4, "loss": 1}) + "\n")
    cut.replace(file)
    assert tail.rows() == [{"step": 4, "loss": 1}]
    assert tail.rows() == []


def test_the_end_of_a_run_is_seen(tmp_path: Path) -> None:
    file = tmp_path / "metrics.jsonl"
    file.write_text('{"step": 1}\n{"step": 2}\n')
    assert not has_ended(tmp_path)
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    lock = {"pid": gone.pid, "host": socket.gethostname()}
    (tmp_path / ".lock").write_text(json.dumps(lock))
    assert has_ended(tmp_path)
    assert list(follow(tmp_path)) == [{"step": 2}]
    (tmp_path / ".lock").write_text(json.dumps({**lock, "host": "elsewhere"}))
    assert not has_ended(tmp_path)
    os.utime(file, (1, 1))  # nothing written for half an hour
    assert has_ended(tmp_path)


@pytest.mark.parametrize(
    ("words", "culprit"),
    [(["nowhere"], "no run directory nowhere"), (["."], ". is no run directory"),
     ([".", "--json"], "--json with --follow")],
)  # fmt: skip
def test_a_wrong_command(words, culprit, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["runs", "show", *words, "--follow"]) == 2
    said = capsys.readouterr().err
    assert culprit in said
    assert len(said.splitlines()) == 1
