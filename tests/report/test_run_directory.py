from __future__ import annotations

import csv
import json
import math
import os
from types import SimpleNamespace

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mimsuite.errors import UserError
from mimsuite.report import RunDirectory, next_steps, status_of


def json_lines(path):
    return [json.loads(line, parse_constant=_no_constant) for line in path.read_text().splitlines()]


def _no_constant(name):
    raise AssertionError(f"{name} is not JSON")


def table(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_new_run_holds_what_is_promised(run):
    names = {entry.name for entry in run.path.iterdir()}
    assert names == {
        "config.yaml", "config.diff.yaml", "command.txt", "env.json", "metrics.jsonl",
        "metrics.csv", "events.jsonl", "train.log", "images", "checkpoints",
    }  # fmt: skip
    assert (run.path / "command.txt").read_text() == (
        "mimsuite pretrain image/small 'data.source=a b'\n"
    )
    environment = json.loads((run.path / "env.json").read_text())
    assert environment["packages"]["torch"].split("+")[0] == torch.__version__.split("+")[0]
    assert {"python", "platform", "hostname", "devices", "git_commit"} <= set(environment)


def test_the_environment_has_no_variables(tmp_path, resolved, monkeypatch):
    monkeypatch.setenv("SECRET_TOKEN", "hush-hush")
    run = RunDirectory.create(tmp_path / "run", resolved, resume=False)
    for file in run.path.glob("*.*"):
        assert "hush-hush" not in file.read_text()


def test_an_existing_run_is_never_overwritten(run, resolved):
    run.finish("DONE", step=3)
    before = {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()}
    with pytest.raises(UserError, match=r"run directory .* exists: resume it with --resume auto"):
        RunDirectory.create(run.path, resolved, resume=False)
    assert {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()} == before


def test_a_folder_with_other_things_is_not_taken(tmp_path, resolved):
    (tmp_path / "photo.jpg").touch()
    with pytest.raises(UserError, match="not empty"):
        RunDirectory.create(tmp_path, resolved, resume=False)
    with pytest.raises(UserError, match="is a file"):
        RunDirectory.create(tmp_path / "photo.jpg", resolved, resume=False)
    (tmp_path / "empty").mkdir()
    assert RunDirectory.create(tmp_path / "empty", resolved, resume=False).images.is_dir()


@pytest.mark.parametrize("place", ["/proc/run", "file/run"])
@pytest.mark.parametrize("resume", [False, True])
def test_a_place_that_cannot_be_written_is_one_line(tmp_path, resolved, place, resume):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"cannot write run directory .*--out") as caught:
        RunDirectory.create(tmp_path / place, resolved, resume=resume)
    assert "\n" not in str(caught.value)


def test_metrics_are_json_and_a_table_that_gains_columns(run):
    run.metrics(1, {"loss": 0.5, "lr": torch.tensor(1e-4, dtype=torch.float64)})
    run.metrics(2, {"loss": math.nan, "grad_norm": math.inf})
    run.metrics(3, {"loss": 0.25})
    assert json_lines(run.path / "metrics.jsonl") == [
        {"step": 1, "loss": 0.5, "lr": 1e-4},
        {"step": 2, "loss": "NaN", "grad_norm": "Infinity"},
        {"step": 3, "loss": 0.25},
    ]
    rows = table(run.path / "metrics.csv")
    assert list(rows[0]) == ["step", "loss", "lr", "grad_norm"]
    assert [row["loss"] for row in rows] == ["0.5", "NaN", "0.25"]
    assert rows[2]["grad_norm"] == ""


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.integers(0, 12), cut=st.integers(-1, 14))
def test_cut_back_drops_exactly_the_later_rows(tmp_path_factory, resolved, steps, cut):
    run = RunDirectory.create(tmp_path_factory.mktemp("runs") / "run", resolved, resume=False)
    for step in range(1, steps + 1):
        run.metrics(step, {"loss": 1 / step})
        run.event("save", step)
    run.cut_back(cut)
    run.metrics(100, {"loss": 0.0, "new": 1.0})
    kept = [*range(1, min(steps, cut) + 1), 100]
    assert [row["step"] for row in json_lines(run.path / "metrics.jsonl")] == kept
    assert [int(row["step"]) for row in table(run.path / "metrics.csv")] == kept
    assert len(json_lines(run.path / "events.jsonl")) == steps
    run.close()


def test_events_and_log(run):
    run.event("bad_sample", 7, key="a\nb.jpg", shard="s-0001.tar", place=run.path)
    (event,) = json_lines(run.path / "events.jsonl")
    assert list(event)[:3] == ["event", "step", "time"]
    assert event["key"] == "a\nb.jpg"
    run.log("two\nlines \x1b[31mred\x07")
    (line,) = (run.path / "train.log").read_text().splitlines()
    assert line.endswith(" two lines red")


def test_a_line_cut_by_a_crash_does_not_spoil_the_next(run, resolved):
    run.metrics(1, {"loss": 1.0})
    run.close()
    for name in ("metrics.jsonl", "metrics.csv", "events.jsonl"):
        with (run.path / name).open("a") as file:
            file.write('{"step": 2, "lo')
    again = RunDirectory.create(run.path, resolved, resume=True)
    again.metrics(2, {"loss": 0.5})
    again.event("resume", 1)
    assert [row["step"] for row in json_lines(again.path / "metrics.jsonl")] == [1, 2]
    assert [row["step"] for row in table(again.path / "metrics.csv")] == ["1", "2"]
    assert len(json_lines(again.path / "events.jsonl")) == 1


def test_resuming_goes_on(run, resolved, monkeypatch):
    run.metrics(1, {"loss": 1.0})
    run.finish("PREEMPTED", step=1, reason="stopped by SIGTERM")
    assert status_of(run.path)[1]["reason"] == "stopped by SIGTERM"
    (purpose, command), = next_steps(run.path)  # fmt: skip
    assert (purpose, command) == (
        "resume",
        f"mimsuite pretrain image/small 'data.source=a b' --out {run.path} --resume auto",
    )
    monkeypatch.setattr("sys.argv", ["mimsuite", "pretrain", "image/small", "--resume", "auto"])
    again = RunDirectory.create(run.path, resolved, resume=True)
    assert status_of(run.path) is None
    assert len((run.path / "command.txt").read_text().splitlines()) == 2
    assert not (run.path / "config.1.yaml").exists()
    again.metrics(2, {"loss": 0.5})
    again.finish("DONE", step=2)
    assert [row["step"] for row in json_lines(run.path / "metrics.jsonl")] == [1, 2]
    assert [path.name for path in run.path.iterdir() if path.name.isupper()] == ["DONE"]


def test_resuming_with_another_recipe_keeps_the_old_one(run, resolved):
    run.close()
    old = (run.path / "config.yaml").read_text()
    other = SimpleNamespace(**{**vars(resolved), "yaml": lambda: "recipe: {title: Longer}\n"})
    RunDirectory.create(run.path, other, resume=True).close()
    assert (run.path / "config.yaml").read_text() == "recipe: {title: Longer}\n"
    assert (run.path / "config.1.yaml").read_text() == old


def test_resuming_where_nothing_is_starts_anew(tmp_path, resolved):
    run = RunDirectory.create(tmp_path / "a" / "b", resolved, resume=True)
    assert (run.path / "config.yaml").is_file()


def test_a_full_disk_is_borne_until_the_third_failure(run, monkeypatch, capsys):
    run.metrics(1, {"loss": 1.0})
    record = run._metrics._record
    monkeypatch.setattr(record, "_write", _full)
    for step in (2, 3):
        run.metrics(step, {"loss": 1.0})
    assert capsys.readouterr().err.count("No space left") == 2
    with pytest.raises(UserError, match="resume the run"):
        run.metrics(4, {"loss": 1.0})
    monkeypatch.undo()
    run.metrics(5, {"loss": 1.0})
    assert [row["step"] for row in json_lines(run.path / "metrics.jsonl")] == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("then", ["column", "cut"])
def test_rows_that_a_full_disk_delayed_come_once(then, run, monkeypatch):
    run.metrics(1, {"loss": 1.0})
    with monkeypatch.context() as full:
        for file in (run._metrics._record, run._metrics._table):
            full.setattr(file, "_write", _full)
        for step in (2, 3):
            run.metrics(step, {"loss": 1.0})
    if then == "cut":  # training goes back to an earlier step
        run.cut_back(2)
    run.metrics(3, {"loss": 2.0, "probe": 0.5})
    losses = [(1, 1.0), (2, 1.0), (3, 2.0)]
    if then == "column":
        losses.insert(2, (3, 1.0))
    kept = json_lines(run.path / "metrics.jsonl")
    assert [(row["step"], row["loss"]) for row in kept] == losses
    run.metrics(4, {"loss": 3.0})
    rows = table(run.path / "metrics.csv")
    assert [(int(row["step"]), float(row["loss"])) for row in rows] == [*losses, (4, 3.0)]


def _full(data):
    raise OSError(28, os.strerror(28))


def test_every_start_on_another_machine_is_kept(run, resolved, monkeypatch):
    run.close()
    monkeypatch.setattr("socket.gethostname", lambda: "other")
    RunDirectory.create(run.path, resolved, resume=True).close()
    RunDirectory.create(run.path, resolved, resume=True).close()
    environment = json.loads((run.path / "env.json").read_text())
    assert environment["hostname"] == "other"
    assert len(environment["earlier"]) == 1
