"""A job on a real SLURM survives what clusters do to jobs, and ends as if nothing had happened."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.slurm.cluster import (
    Cluster,
    history,
    logged,
    rank_process,
    require_equal,
    rows,
    saved,
)

pytestmark = pytest.mark.slurm

EVERY = 10  # steps between checkpoints
KEYS = (
    "image/mae-tiny-fashion",
    "--smoke",
    "model.encoder.drop_path=0.2",
    "train.ema=0.9",
    "data.workers=1",
    "schedule.epochs=64",
    "log.every_steps=1",
    "log.pictures_every_epochs=null",
    f"checkpoint.every_steps={EVERY}",
    "checkpoint.every_minutes=null",
)


def test_limit_kill_preemption_and_a_lost_node_change_nothing(
    cluster: Cluster, tmp_path: Path
) -> None:
    run, whole = tmp_path / "run", tmp_path / "whole"
    job = cluster.submit(
        *KEYS, "--nodes", "2", "--cpus-per-task", "2", "--time", "1", "--signal", "USR1@50",
        "--partition", "low", "--out", run,
    )  # fmt: skip
    reached = [0]

    def next_start() -> None:
        """Wait until the job is queued again, and then until it trains."""
        reached.append(logged(run))
        number = len(reached) - 1
        cluster.wait("a requeue", lambda: cluster.restarts(job) == number, run, job)
        if number == 1:  # from now on it is not the limit that ends it
            cluster.run("scontrol", "update", f"JobId={job}", "TimeLimit=20")
        resumed = saved(run)
        assert resumed > 0
        cluster.wait("steps", lambda: logged(run) > resumed + 2 * EVERY, run, job)

    cluster.wait("USR1 before the limit", lambda: (run / "PREEMPTED").exists(), run, job)
    next_start()

    os.kill(rank_process(job, 1), signal.SIGKILL)
    cluster.wait("a lost rank", lambda: "lost a process" in history(run)[-1], run, job)
    next_start()

    urgent = cluster.run(
        "sbatch", "--parsable", "--partition=high", "--nodes=2", "--exclusive", "--time=1",
        f"--output={tmp_path}/urgent.out", "--wrap", "sleep 1",
    ).strip()  # fmt: skip
    cluster.wait("preemption", lambda: (run / "PREEMPTED").exists(), run, job)
    next_start()
    assert cluster.state(urgent) == "COMPLETED"

    cluster.run("scontrol", "update", "NodeName=n2", "State=DOWN", "Reason=test")
    cluster.wait("a lost node", lambda: cluster.restarts(job) == 4, run)
    # Refused where the node's daemon has registered again in the meantime: it is up then.
    cluster.run("scontrol", "update", "NodeName=n2", "State=RESUME", code=None)
    reached.append(logged(run))
    cluster.wait("the end", lambda: cluster.ended(job), run)
    assert (cluster.state(job), cluster.restarts(job)) == ("COMPLETED", 4)

    resumed = [row["step"] for row in rows(run, "events") if row["event"] == "resume"]
    assert len(resumed) == 4
    for step, before in zip(resumed, reached[1:], strict=True):
        assert 0 < before - EVERY <= step
    said = "\n".join(history(run))
    assert said.count("stopped by a signal, queued again") == 2
    assert said.count("lost a process, queued again") == 1
    assert f"{job} start 5: from step {resumed[-1]} on n[1-2]" in said

    # The same layout, undisturbed.
    cluster.mimsuite("pretrain", *KEYS, "--procs", "2", "--out", whole)
    require_equal(run, whole)


@pytest.mark.parametrize("moment", ["python", "torch"])
def test_a_signal_while_importing(moment: str, cluster: Cluster, tmp_path: Path) -> None:
    run = tmp_path / "run"
    job = cluster.submit(*KEYS, "schedule.epochs=1", "--time", "10", "--nodes", "2", "--out", run)

    def there() -> bool:
        try:
            pid = rank_process(job, 0)
            maps = Path(f"/proc/{pid}/maps").read_text()
        except (AssertionError, OSError):
            return False
        return moment == "python" or "libtorch_cpu" in maps

    cluster.wait("a rank", there, run, job)
    cluster.run("scancel", "--signal=USR1", job)
    cluster.wait("the end", lambda: cluster.ended(job), run)
    assert (cluster.state(job), cluster.restarts(job)) == ("COMPLETED", 1)
    ended = history(run)[1]
    if moment == "torch":  # a step was made and saved
        assert "exit code 75, step 0 to 1: stopped by a signal, queued again" in ended
    assert "queued again" in ended
    assert (run / "DONE").exists()


def test_a_sweep_is_one_array_whose_elements_are_queued_again_alone(
    cluster: Cluster, tmp_path: Path
) -> None:
    out = tmp_path / "sweep"
    keys = ("schedule.epochs=2", "--cpus-per-task", "1", "--time", "10", "--at-once", "2")
    job = cluster.submit(
        *KEYS, "data.workers=0", *keys, "--sweep", "optim.lr=1e-3,2e-3,3e-3", "--out", out
    )
    runs = [out / f"optim.lr={value}" for value in ("1e-3", "2e-3", "3e-3")]
    # This element's job bears the number of the array: requeueing that would requeue all of it.
    stopped = 2
    cluster.wait("a step", lambda: logged(runs[stopped]) >= 1, out)
    assert cluster.job(f"{job}_{stopped}")["JobId"] == job
    cluster.run("scancel", "--signal=USR1", f"{job}_{stopped}")
    elements = [f"{job}_{number}" for number in range(3)]
    cluster.wait("the end", lambda: all(map(cluster.ended, elements)), out)
    assert [cluster.state(element) for element in elements] == ["COMPLETED"] * 3
    assert [cluster.restarts(e) for e in elements] == [int(n == stopped) for n in range(3)]
    assert [logged(run) for run in runs] == [78] * 3
    assert len({rows(run)[-1]["loss"] for run in runs}) == 3
    listed = cluster.mimsuite("runs", "list", out)
    assert listed.count("DONE") == 3
    assert f"{job}_2 COMPLETED" in listed


@pytest.mark.parametrize(
    ("command", "starts", "said"),
    [
        ("exit 75", 2, "stopped before it could save, and no new step was saved"),
        ("kill -9 $$", 1, "lost a process, and no new step was saved"),
        ("exit 4", 1, "exit code 4, step 0 to 0: failed"),
    ],
)
def test_what_makes_no_progress_is_not_repeated_for_ever(
    command: str, starts: int, said: str, cluster: Cluster, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    program = tmp_path / "program"
    program.write_text(f"#!/bin/bash\n{command}\n")
    program.chmod(0o755)
    settings = Path(cluster.environment["XDG_CONFIG_HOME"]) / "mimsuite" / "slurm.yaml"
    settings.parent.mkdir(parents=True, exist_ok=True)
    settings.write_text(f"broken: {{command: {program}}}\n")
    job = cluster.submit(*KEYS, "--profile", "broken", "--time", "10", "--out", run)
    cluster.wait("the end", lambda: cluster.ended(job), run)
    assert cluster.state(job) == "FAILED"
    assert cluster.restarts(job) == starts - 1
    assert said in history(run)[-1]
    assert len(history(run)) == 2 * starts


def test_a_cancelled_job_saves_and_stays_cancelled(cluster: Cluster, tmp_path: Path) -> None:
    run = tmp_path / "run"
    job = cluster.submit(*KEYS, "--time", "10", "--nodes", "2", "--out", run)
    cluster.wait("a step", lambda: logged(run) >= 1, run, job)
    cluster.run("scancel", job)
    cluster.wait("the end", lambda: cluster.ended(job), run)
    assert (cluster.state(job), cluster.restarts(job)) == ("CANCELLED", 0)
    assert "SLURM has ended the job" in history(run)[-1]
    assert (run / "PREEMPTED").exists()
    assert saved(run) >= 1
    refused = cluster.mimsuite("submit", *KEYS, "--out", run, code=2)
    assert "go on in it with --resume auto" in refused


def test_a_start_without_srun_is_refused_at_once(cluster: Cluster, tmp_path: Path) -> None:
    begun = time.monotonic()
    command = f"{sys.executable} -m mimsuite pretrain {KEYS[0]} --out {tmp_path}/run"
    done = subprocess.run(
        [
            "sbatch",
            "--wait",
            "--nodes=2",
            "--ntasks=2",
            f"--output={tmp_path}/said",
            "--wrap",
            command,
        ],
        env=cluster.environment,
    )
    assert done.returncode == 2
    assert "start it with srun" in (tmp_path / "said").read_text()
    assert time.monotonic() - begun < 8  # `sbatch --wait` looks only now and then
