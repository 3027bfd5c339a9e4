"""Ranks that wait name those that they wait for, and end at once when they are told to."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

LATE = Path(__file__).with_name("late_ranks.py")
TASK = {
    "SLURM_JOB_ID": "1",
    "SLURM_NTASKS": "4",
    "SLURM_PROCID": "0",
    "SLURM_LOCALID": "0",
    "SLURM_NODEID": "0",
    "SLURM_STEP_ID": "0",
    "SLURM_STEP_NUM_TASKS": "4",
    "SLURM_STEP_NODELIST": "localhost",
}


def waits(said: str) -> list[str]:
    return [line for line in said.splitlines() if line.startswith("waiting for")]


def test_the_rendezvous_names_the_ranks_that_have_not_come(ranks):
    codes, said = ranks.call(f"{LATE}:meet_late", ranks=4)
    assert codes == [0] * 4, said
    lines = waits(said)
    assert lines
    assert all(line.startswith("waiting for rank 2, 3 of 4 (") for line in lines), said


def test_a_late_first_rank_is_named_with_its_address(ranks):
    codes, said = ranks.call(f"{LATE}:serve_late", ranks=2)
    assert codes == [0] * 2, said
    assert any(line.startswith("waiting for rank 0 at 127.0.0.1:") for line in waits(said)), said


def test_a_vote_names_the_late_rank_and_one_rank_speaks(ranks):
    codes, said = ranks.call(f"{LATE}:vote_late", ranks=3)
    assert codes == [0] * 3, said
    lines = waits(said)
    votes = [line for line in lines if "in the vote" in line]
    assert votes
    assert all(line.startswith("waiting for rank 1 in the vote (") for line in votes)
    assert len(votes) == len(set(votes))  # not of each rank that waits
    work = [line for line in lines if "wait for another rank" in line]
    assert all(line.startswith("waiting for rank 0 in the") for line in work)
    assert work


def test_one_task_of_four_says_whom_it_waits_for_and_ends_on_sigterm(tmp_path):
    begun = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-m", "mimsuite", "pretrain", "image/mae-tiny-fashion", "--smoke",
         "--out", str(tmp_path / "run")],
        env={**os.environ, **TASK, "MASTER_ADDR": "127.0.0.1"},
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stderr is not None
    line = process.stderr.readline()
    assert "waiting for rank 1-3 of 4 (10 s)" in line
    assert time.monotonic() - begun < 40  # with the import of torch, on a busy machine
    process.send_signal(signal.SIGTERM)
    stopped = time.monotonic()
    _, errors = process.communicate(timeout=20)
    assert time.monotonic() - stopped < 5
    assert process.returncode == 75
    assert "stopped by SIGTERM before all ranks had come" in errors
    assert not (tmp_path / "run").exists()
