"""Nobody waits for the dead, and everybody waits for a slow disk."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from tests.cluster.test_ranks import SMALL, rank_process, rows, start, wait_for_step

SLOW = Path(__file__).with_name("slow_save.py")


def test_a_rank_lost_before_the_ranks_have_met_ends_all_in_seconds(tmp_path):
    process = start(tmp_path / "run", "--procs", "2")
    deadline = time.monotonic() + 30
    lost = None
    while lost is None and time.monotonic() < deadline:
        try:
            lost = rank_process(process.pid, 1)
        except (AssertionError, OSError):
            time.sleep(0.01)
    begun = time.monotonic()
    os.kill(lost, signal.SIGKILL)
    _, errors = process.communicate(timeout=60)
    assert time.monotonic() - begun < 15
    assert process.returncode == 128 + signal.SIGKILL
    assert "rank 1 was ended by SIGKILL" in errors
    assert "Traceback" not in errors


def test_a_slow_disk_does_not_count_as_a_lost_rank(ranks, tmp_path):
    out = tmp_path / "run"
    keys = ("schedule.epochs=1", "train.timeout_seconds=3")
    codes, said = ranks.call(f"{SLOW}:train", "5", "pretrain", *SMALL, *keys, "--out", str(out))
    assert codes == [0, 0], said
    assert len([row for row in rows(out, "events") if row["event"] == "save"]) == 2


def test_a_slow_measurement_does_not_count_as_a_lost_rank(ranks, tmp_path):
    out = tmp_path / "run"
    keys = ("schedule.epochs=1", "train.timeout_seconds=3", "log.every_steps=2")
    keys += ("log.signals_every_epochs=0.5", "log.signals_samples=8")
    codes, said = ranks.call(
        f"{SLOW}:train_measured", "8", "pretrain", *SMALL, *keys, "--out", str(out)
    )
    assert codes == [0, 0], said
    assert sum("rankme" in row for row in rows(out)) >= 2


def test_a_run_directory_in_use_is_refused(ranks, tmp_path):
    out = tmp_path / "run"
    process = start(out, "--procs", "2", "schedule.epochs=400")
    try:
        wait_for_step(out, process, 6)
        words = ("pretrain", *SMALL, "--out", out, "--resume", "auto")
        codes, said = ranks.run(*words)
        holder = rank_process(process.pid, 0)
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)
    assert codes == [2, 2]
    (line,) = [line for line in said.splitlines() if line.startswith("error: ")]
    assert f"run directory {out} is in use by process {holder} on " in line


def test_a_killed_run_lets_go_at_once(tmp_path):
    out = tmp_path / "run"
    process = start(out, "data.workers=2", "schedule.epochs=400")
    wait_for_step(out, process, 6)
    process.kill()  # its loader's workers live on for a moment
    process.wait()
    done = subprocess.run(
        [sys.executable, "-c", "import sys; from pathlib import Path; "
         "from mimsuite.train.lock import RunLock; RunLock().take(Path(sys.argv[1]))", str(out)],
        capture_output=True, text=True,
    )  # fmt: skip
    process.communicate(timeout=30)
    assert done.returncode == 0, done.stderr
