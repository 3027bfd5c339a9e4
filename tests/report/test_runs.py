"""`mimsuite runs list`: every kind of run directory in one line."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

import pytest

from mimsuite import config
from mimsuite.cli.main import main
from mimsuite.report.runs import find_runs, summarise

RECIPE = "image/mae-tiny-fashion"
STEPS = 130 * 39


def make(run: Path, *, step: int = 0, status: str = "", age: float = 0.0, job: str = "") -> Path:
    """The files of a run that has come so far."""
    run.mkdir(parents=True)
    (run / "config.yaml").write_text(config.load(RECIPE).yaml())
    (run / "command.txt").write_text(f"mimsuite pretrain {RECIPE} --out {run}\n")
    if step:
        row = {"step": step, "epoch": step / 39, "loss": 0.5}
        (run / "metrics.jsonl").write_text("{}\n" + json.dumps(row) + '\n{"step": 99')
    if status:
        (run / status).write_text(json.dumps({"step": step, "reason": "x"}))
    if job:
        record = {"job": job, "script": f"{run}/job.sbatch", "recipe": RECIPE}
        (run / "job.json").write_text(json.dumps(record))
    for file in run.iterdir():
        os.utime(file, (time.time() - age,) * 2)
    return run


def test_each_state_is_told(tmp_path):
    done = summarise(make(tmp_path / "done", step=STEPS, status="DONE"))
    assert (done.status, done.step, done.total_steps, done.loss) == ("DONE", STEPS, STEPS, 0.5)
    assert done.recipe == RECIPE
    assert done.next.startswith("mimsuite linear-probe ")
    failed = summarise(make(tmp_path / "failed", step=7, status="FAILED"))
    assert failed.next == f"mimsuite pretrain {RECIPE} --out {tmp_path}/failed --resume auto"
    assert summarise(make(tmp_path / "running", step=3)).status == "running"
    quiet = summarise(make(tmp_path / "quiet", step=3, age=7200))
    assert quiet.status == "quiet"
    assert quiet.age == pytest.approx(7200, abs=60)
    stopped = summarise(make(tmp_path / "stopped", step=7, status="PREEMPTED", job="12_3"))
    assert (stopped.job, stopped.step) == ("12_3", 7)
    assert stopped.next == f"sbatch --array=3 {tmp_path}/stopped/job.sbatch"


def test_the_job_is_the_one_that_started_last(tmp_path):
    run = make(tmp_path / "run", step=1, job="12")
    (run / "job.log").write_text(
        "2026-01-01T00:00:00+0000 job 12 start 1: from step 0 on n1\n"
        "2026-01-01T01:00:00+0000 job 15 start 1: from step 9 on n1\n"
    )
    assert summarise(run).job == "15"


def test_runs_are_found_and_what_is_inside_of_them_is_not(tmp_path):
    for name in ("b", "a/x", "a/y", ".hidden"):
        make(tmp_path / name)
    make(tmp_path / "b" / "pretrained")
    (tmp_path / "waiting").mkdir()
    (tmp_path / "waiting" / "job.json").write_text('{"job": "1", "recipe": "mine.yaml"}')
    found = [run.relative_to(tmp_path).as_posix() for run in find_runs([tmp_path])]
    assert found == ["a/x", "a/y", "b", "waiting"]
    waiting = summarise(tmp_path / "waiting")
    assert (waiting.status, waiting.recipe, waiting.step) == ("waiting", "mine.yaml", None)
    assert list(find_runs([tmp_path / "b"])) == [tmp_path / "b"]


def test_broken_files_are_no_obstacle(tmp_path):
    run = make(tmp_path / "run", step=2, status="DONE")
    for name in ("config.yaml", "metrics.jsonl", "DONE", "command.txt"):
        (run / name).write_bytes(b"\xff\x00{[")
    found = summarise(run)
    assert (found.status, found.step, found.total_steps, found.loss) == ("DONE", None, None, None)


def test_the_table_and_its_json(tmp_path, capfd, monkeypatch):
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent))  # no squeue
    make(tmp_path / "run", step=39, status="PREEMPTED", job="12")
    assert main(["runs", "list", str(tmp_path)]) == 0
    header, line = capfd.readouterr().out.splitlines()
    assert header.split() == ["run", "status", "step", "loss", "age", "job", "recipe", "next"]
    assert f"PREEMPTED  39/{STEPS}  0.5" in line
    assert main(["runs", "list", str(tmp_path), "--json"]) == 0
    (entry,) = json.loads(capfd.readouterr().out)
    assert (entry["job"], entry["job_state"], entry["total_steps"]) == ("12", None, STEPS)
    (tmp_path / "empty").mkdir()
    assert main(["runs", "list", str(tmp_path / "empty")]) == 0
    assert "no runs in" in capfd.readouterr().err
    assert main(["runs", "list", str(tmp_path / "missing")]) == 2


@pytest.mark.parametrize("columns", [80, 120])
def test_a_run_is_one_line_of_a_terminal(tmp_path, monkeypatch, capsys, columns):
    monkeypatch.chdir(tmp_path)
    make(Path("runs") / "one-with-a-rather-long-name-of-its-own", step=7)
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert main(["runs", "list"]) == 0
    head, run = capsys.readouterr().out.splitlines()
    assert max(len(head) - len("\033[1m\033[0m"), len(run)) <= columns
    for part in ("one-with-a-rather-long-name-of-its-own", "running", f"7/{STEPS}"):
        assert part in run
    assert (RECIPE in run) == (columns == 120)
