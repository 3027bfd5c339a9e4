"""Experiment trackers: one run each however often it is resumed, and never the run's trouble.

TensorBoard is the real one. The others are stand-ins with the same interface (``trackers/``).
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from mimsuite import config
from mimsuite.cli.main import main
from mimsuite.report import RunDirectory
from mimsuite.report.writers import Writers, feed, require_packages, writers
from mimsuite.report.writers.feed import Feed

TRACKERS = Path(__file__).parent / "trackers"
ALL = ("tensorboard", "wandb", "mlflow", "trackio")


@pytest.fixture
def trackers(tmp_path, monkeypatch):
    """Stand-ins of wandb, mlflow and trackio in this process and its children."""
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.syspath_prepend(TRACKERS)
    path = os.pathsep.join([str(TRACKERS), os.environ.get("PYTHONPATH", "")])
    monkeypatch.setenv("PYTHONPATH", path)
    yield
    for name in [n for n in sys.modules if n.partition(".")[0] in ALL[1:]]:
        del sys.modules[name]


def recipe(*names: str):
    return config.load(
        "image/mae-tiny-fashion", [f"log.writers=[{', '.join(names)}]", "log.project=p"]
    )


def tensorboard(run: Path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run / "tensorboard"), size_guidance={"scalars": 0, "images": 0})
    events.Reload()
    return events


def losses_everywhere(run: Path) -> dict[str, list[tuple[int, float]]]:
    """(step, loss) of each tracker, of its one run."""
    store = json.loads((run / "mlruns" / "store.json").read_text())
    (of_mlflow,) = store["runs"]
    (of_trackio,) = (run.parent / "trackio").iterdir()
    of_wandb = sorted((run / "wandb").glob("*.jsonl"))
    assert len({file.stem.partition("-")[2] for file in of_wandb}) == 1  # one id
    return {
        "tensorboard": [(one.step, one.value) for one in tensorboard(run).Scalars("loss")],
        "mlflow": [(step, value) for key, value, step in of_mlflow["metrics"] if key == "loss"],
        "trackio": pairs([of_trackio]),
        "wandb": pairs(of_wandb),
    }


def pairs(files: list[Path]) -> list[tuple[int, float]]:
    rows = [json.loads(line) for file in files for line in file.read_text().splitlines()]
    return [(row["step"], row["loss"]) for row in rows if "loss" in row]


def test_a_resumed_run_is_one_run_in_each_tracker_with_each_step_once(trackers, tmp_path):
    from PIL import Image

    picture = tmp_path / "reconstruction-00000004.png"
    Image.new("RGB", (8, 6), "red").save(picture)
    first = RunDirectory.create(tmp_path / "a", recipe(*ALL), resume=False)
    first.cut_back(0)
    for step in range(1, 9):
        first.metrics(step, {"loss": step / 2, "epoch": step / 8, "name": "not a number"})
        if step == 4:
            first.picture(picture, 4)
    first.close()  # without a verdict, as when it is killed behind a checkpoint of step 5
    second = RunDirectory.create(tmp_path / "a", recipe(*ALL), resume=True)
    second.cut_back(5)
    for step in range(6, 12):
        second.metrics(step, {"loss": step / 2, "epoch": step / 8})
    second.finish("DONE", step=11)
    wanted = [(step, step / 2) for step in range(1, 12)]
    assert losses_everywhere(tmp_path / "a") == dict.fromkeys(ALL, wanted)
    (image,) = tensorboard(tmp_path / "a").Images("reconstruction")
    assert (image.step, image.width, image.height) == (4, 8, 6)
    (run,) = json.loads((tmp_path / "a" / "mlruns" / "store.json").read_text())["runs"]
    assert run["status"] == "FINISHED"
    assert run["png"] == [picture.name]
    assert run["params"]["optim.name"] == "adamw"


def test_a_step_that_was_written_and_not_noted_comes_once(trackers, tmp_path):
    """As when the process is killed between the two; pictures of steps before it stay."""
    from PIL import Image

    picture = tmp_path / "reconstruction-00000003.png"
    Image.new("RGB", (8, 6), "red").save(picture)
    first = RunDirectory.create(tmp_path / "a", recipe("tensorboard"), resume=False)
    for step in range(2, 7, 2):
        first.metrics(step, {"loss": step / 2})
        if step == 2:
            first.picture(picture, 3)
    first.close()
    notes = json.loads((tmp_path / "a" / "writers.json").read_text())
    assert notes["steps"]["tensorboard"] == 6
    notes["steps"]["tensorboard"] = 2  # of 4 and 6 nothing was noted
    (tmp_path / "a" / "writers.json").write_text(json.dumps(notes))
    second = RunDirectory.create(tmp_path / "a", recipe("tensorboard"), resume=True)
    second.cut_back(7)
    second.metrics(8, {"loss": 4.0})
    second.finish("DONE", step=8)
    found = tensorboard(tmp_path / "a")
    assert [(one.step, one.value) for one in found.Scalars("loss")] == [
        (2, 1.0), (4, 2.0), (6, 3.0), (8, 4.0)
    ]  # fmt: skip
    assert [one.step for one in found.Images("reconstruction")] == [3]


def test_a_run_that_is_killed_and_resumed_is_one_run_in_each_tracker(trackers, tmp_path):
    out = tmp_path / "a"
    command = [
        *(sys.executable, "-m", "mimsuite", "pretrain", "image/mae-tiny-fashion", "--smoke"),
        *("data.limit=1000", "train.global_batch=100", "log.every_steps=1", "schedule.epochs=3"),
        *("checkpoint.every_steps=4", "--device", "cpu", "--out", str(out)),
        *(f"log.writers=[{','.join(ALL)}]", "log.pictures_every_epochs=1"),
    ]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("step 9/"):
            break
    process.send_signal(signal.SIGKILL)
    process.communicate()
    done = subprocess.run([*command, "--resume", "auto"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""  # whatever a tracker prints
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    found = losses_everywhere(out)
    for name, got in found.items():
        if name in ("trackio", "wandb"):  # cannot tell what they have: the last step may come twice
            assert len(got) <= len(rows) + 1
            got = sorted(set(got))
        assert [step for step, _ in got] == [row["step"] for row in rows], name
        assert [value for _, value in got] == pytest.approx([row["loss"] for row in rows]), name
    assert "reconstruction" in tensorboard(out).Tags()["images"]


def test_writers_change_no_weight(trackers, tmp_path):
    command = ["pretrain", "image/mae-tiny-fashion", "--smoke", "data.limit=300", "--device", "cpu"]
    command += ["train.global_batch=50", "log.every_steps=1"]
    names = ",".join(ALL)
    assert main([*command, "--out", str(tmp_path / "with"), f"log.writers=[{names}]"]) == 0
    assert main([*command, "--out", str(tmp_path / "without")]) == 0
    a, b = (
        next((tmp_path / name / "checkpoints").glob("step-*")) / "model.safetensors"
        for name in ("with", "without")
    )
    assert a.read_bytes() == b.read_bytes()


@pytest.mark.parametrize("name", ALL)
def test_a_missing_package_ends_the_command_before_anything_is_written(
    name, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(writers, "find_spec", lambda wanted: None if wanted == name else True)
    command = ["pretrain", "image/mae-tiny-fashion", "--smoke", "--out", str(tmp_path / "a")]
    assert main([*command, f"log.writers=[{name}]"]) == 2
    assert f"{name} is not installed: pip install 'mimsuite[log]'" in capsys.readouterr().err
    assert not (tmp_path / "a").exists()
    require_packages(())


class Recorder:
    """Does as ``act`` says at each point."""

    replaces = False

    def __init__(self, act=lambda step: None) -> None:
        self.act, self.steps = act, []

    def metrics(self, step, values):
        self.act(step)
        self.steps.append(step)

    def close(self):
        pass


def put(target: Feed, step: int) -> None:
    target.put(lambda writer: writer.metrics(step, {}))


def test_a_writer_that_fails_is_named_once_and_tried_again_later(monkeypatch):
    def act(step: int) -> None:
        if step in (2, 5):
            raise ConnectionError("no route\nto host")

    monkeypatch.setattr(feed, "_PAUSE_SECONDS", 0.0)
    writer = Recorder(act)
    one = Feed("wandb", lambda: writer)
    for step in range(8):
        put(one, step)
    one.close(time.monotonic() + 10)
    assert writer.steps == [0, 1, 3, 4, 6, 7]
    first, last = one.notes
    assert first.startswith("log.writers: wandb failed (ConnectionError: no route)")
    assert "2 points were not written" in last


def test_a_pause_after_a_failure_spares_the_tracker():
    def act(step: int) -> None:
        raise OSError(28, "No space left on device")

    one = Feed("mlflow", lambda: Recorder(act))
    for step in range(100):
        put(one, step)
    one.close(time.monotonic() + 10)
    assert one.lost == 100
    assert len(one.notes) == 2


@pytest.mark.parametrize("fault", [RuntimeError("no login"), SystemExit(1), ImportError("broken")])
def test_a_writer_that_cannot_be_started_is_left_out(fault):
    def start():
        raise fault

    one = Feed("wandb", start)
    put(one, 1)
    one.close(time.monotonic() + 10)
    assert f"cannot be started ({type(fault).__name__}" in one.notes[0]
    assert "1 points were not written" in one.notes[1]


@pytest.mark.parametrize("where", ["start", "point"])
def test_a_writer_that_hangs_holds_nothing_up(where, monkeypatch):
    monkeypatch.setattr(feed, "_WAITING", 10)
    free = threading.Event()

    def start():
        if where == "start":
            free.wait(60)
        return Recorder(lambda step: free.wait(60))

    one = Feed("trackio", start)
    begun = time.monotonic()
    for step in range(50):
        put(one, step)
    one.close(time.monotonic() + 0.2)
    assert time.monotonic() - begun < 5
    assert any("does not keep up" in note for note in one.notes)
    assert any("does not answer" in note for note in one.notes)
    assert one.lost >= 49 - 1
    free.set()


def test_a_tracker_out_of_reach_is_a_warning_of_a_run_that_ends_well(
    trackers, tmp_path, monkeypatch, capsys
):
    monkeypatch.setenv("WANDB_MODE", "online")  # without a login
    command = ["pretrain", "image/mae-tiny-fashion", "--smoke", "data.limit=300"]
    command += ["train.global_batch=100", "log.writers=[wandb]", "--out", str(tmp_path / "a")]
    assert main(command) == 0
    errors = capsys.readouterr().err
    assert errors.count("warning: log.writers: wandb cannot be started") == 1
    assert "wandb login" in errors
    assert "warning: log.writers: wandb" in (tmp_path / "a" / "train.log").read_text()
    assert (tmp_path / "a" / "DONE").exists()


def test_a_writer_that_joins_a_run_later_gets_all_of_it(trackers, tmp_path):
    def start(names):
        return Writers(tmp_path, names, "p", {"optim": {}}, print)

    first = start(("tensorboard",))
    first.metrics(1, {"loss": 1.0})
    first.close()
    second = start(("tensorboard", "trackio"))
    second.go_on(1, [{"step": 1, "loss": 1.0, "grad_norm": "NaN", "name": "a"}])
    second.metrics(2, {"loss": 0.5})
    second.close()
    (file,) = (tmp_path / "trackio").iterdir()
    assert pairs([file]) == [(1, 1.0), (2, 0.5)]
    assert [one.step for one in tensorboard(tmp_path).Scalars("loss")] == [1, 2]
    stored = json.loads((tmp_path / "writers.json").read_text())
    assert stored["steps"] == {"tensorboard": 2, "trackio": 2}
