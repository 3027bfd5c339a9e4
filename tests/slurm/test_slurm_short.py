"""The least that must be true on a cluster: a job that is told to stop goes on where it was."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.slurm.cluster import Cluster, history, logged, rows, saved

pytestmark = pytest.mark.slurm

SMALL = (
    "image/mae-tiny-fashion",
    "--smoke",
    "schedule.epochs=12",
    "log.every_steps=1",
    "checkpoint.every_minutes=null",
)


def test_a_job_stopped_by_a_signal_goes_on_by_itself(cluster: Cluster, tmp_path: Path) -> None:
    run = tmp_path / "run"
    job = cluster.submit(*SMALL, "--nodes", "2", "--time", "10", "--out", run)
    cluster.wait("a step", lambda: logged(run) >= 3, run, job)
    cluster.run("scancel", "--signal=USR1", job)
    cluster.wait("the end", lambda: cluster.ended(job), run)
    assert (cluster.state(job), cluster.restarts(job)) == ("COMPLETED", 1)
    assert (run / "DONE").exists()
    (resume,) = [row["step"] for row in rows(run, "events") if row["event"] == "resume"]
    assert 3 <= resume < saved(run) == 12 * 39
    assert [line.partition(": ")[2] for line in history(run)] == [
        "from step 0 on n[1-2]",
        f"exit code 75, step 0 to {resume}: stopped by a signal, queued again",
        f"from step {resume} on n[1-2]",
        f"exit code 0, step {resume} to {saved(run)}: done",
    ]
    listed = cluster.mimsuite("runs", "list", run).splitlines()[1]
    assert "DONE    468/468" in listed
    assert f"{job} COMPLETED" in listed
