"""Several processes train as one does, agree when to stop, and say who failed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from tests.cluster.ranks import Ranks

SMALL = (
    "image/mae-tiny-fashion",
    "--smoke",
    "model.encoder.drop_path=0.2",
    "train.ema=0.9",
    "data.limit=192",
    "train.global_batch=32",
    "data.lanes=8",
    "schedule.epochs=4",
    "log.every_steps=1",
    "checkpoint.every_steps=5",
    "checkpoint.every_minutes=null",
    "checkpoint.keep=9",
)
STEPS = 4 * 192 // 32


def start(out: Path, *words: str, **options: object) -> subprocess.Popen:
    command = [sys.executable, "-m", "mimsuite", "pretrain", *SMALL, "--out", str(out), *words]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options
    )


def train(out: Path, *words: str, code: int = 0) -> str:
    process = start(out, *words)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == code, errors
    return errors


def rows(out: Path, name: str = "metrics") -> list[dict]:
    return [json.loads(line) for line in (out / f"{name}.jsonl").read_text().splitlines()]


def figures(out: Path) -> list[tuple[float, ...]]:
    return [(row["step"], row["loss"], row["grad_norm"]) for row in rows(out)]


def tensors(out: Path, step: int = STEPS) -> dict[str, dict]:
    folder = out / "checkpoints" / f"step-{step:08d}"
    return {file.name: load_file(file) for file in folder.glob("*.safetensors")}


def assert_close(ours: Path, wanted: Path) -> None:
    assert [step for step, *_ in figures(ours)] == list(range(1, STEPS + 1))
    for one, other in zip(figures(ours), figures(wanted), strict=True):
        assert one == pytest.approx(other, rel=1e-6)
    found, expected = tensors(ours), tensors(wanted)
    for name in ("model.safetensors", "ema.safetensors"):
        for key, value in expected[name].items():
            ours_of, wanted_of = found[name][key], value
            if key.endswith("qkv.bias"):
                # Softmax does not see the keys' bias: its gradient is rounding noise, which Adam
                # scales up.
                third = len(value) // 3
                ours_of, wanted_of = (
                    np.delete(b, range(third, 2 * third)) for b in (ours_of, value)
                )
            assert ours_of == pytest.approx(wanted_of, rel=1e-4, abs=1e-5), key


def train_forked(ranks: Ranks, out: Path, *words: str, world: int = 2) -> None:
    """The same by ranks that have imported everything already."""
    codes, said = ranks.run("pretrain", *SMALL, "--out", out, *words, ranks=world)
    assert codes == [0] * world, said


@pytest.fixture(scope="module")
def one(ranks, tmp_path_factory) -> Path:
    """A run of a single process."""
    out = tmp_path_factory.mktemp("ranks") / "one"
    train_forked(ranks, out, world=1)
    return out


def test_two_ranks_equal_one_process(ranks, one, tmp_path):
    said = train(tmp_path / "two", "--procs", "2", "data.workers=1")
    assert "32 = 16 per device x 2 devices x 1 accumulation" in said
    assert_close(tmp_path / "two", one)
    assert (tmp_path / "two" / "logs" / "rank-00001.log").read_text().count("\n") > 1
    assert len([name for name in tensors(tmp_path / "two") if name.startswith("rank-")]) == 2
    train_forked(ranks, tmp_path / "accumulated", "train.micro_batch=8")
    assert_close(tmp_path / "accumulated", one)


def test_a_run_goes_on_with_fewer_ranks(ranks, one, tmp_path):
    out = tmp_path / "run"
    for procs, step in (("4", 6), ("2", 12), ("1", STEPS)):
        process = start(out, "--procs", procs, "--resume", "auto")
        wait_for_step(out, process, step)
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=60)
        assert process.returncode in ((75,) if procs != "1" else (0, 75)), errors
    train_forked(ranks, out, "--resume", "auto", world=1)
    assert_close(out, one)
    resumed = [row["step"] for row in rows(out, "events") if row["event"] == "resume"]
    assert len(resumed) >= 2
    assert all(step > 0 for step in resumed)


def wait_for_step(out: Path, process: subprocess.Popen, step: int) -> None:
    deadline = time.monotonic() + 90
    while process.poll() is None and time.monotonic() < deadline:
        metrics = out / "metrics.jsonl"
        if metrics.exists() and len(metrics.read_text().splitlines()) >= step:
            return
        time.sleep(0.01)


def test_a_signal_to_one_rank_stops_all_at_the_same_step_and_resume_is_exact(tmp_path):
    whole, out = tmp_path / "whole", tmp_path / "run"
    train(whole, "--procs", "2")
    process = start(out, "--procs", "2")
    wait_for_step(out, process, 3)
    os.kill(rank_process(process.pid, 1), signal.SIGUSR1)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 75, errors
    train(out, "--procs", "2", "--resume", "auto")
    assert figures(out) == figures(whole)
    found, expected = tensors(out), tensors(whole)
    assert found.keys() == expected.keys()
    for name, content in expected.items():
        for key, value in content.items():
            assert (found[name][key] == value).all(), (name, key)


def rank_process(launcher: int, rank: int) -> int:
    """The pid of a rank, found by its environment."""
    for child in Path(f"/proc/{launcher}/task/{launcher}/children").read_text().split():
        if f"RANK={rank}".encode() in Path(f"/proc/{child}/environ").read_bytes().split(b"\0"):
            return int(child)
    raise AssertionError(f"no rank {rank}")


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "stopped"])
def test_a_lost_rank_is_named_in_time(how, tmp_path):
    out, limit = tmp_path / "run", 3.0
    process = start(out, "--procs", "2", "schedule.epochs=400", f"train.timeout_seconds={limit}")
    wait_for_step(out, process, 3)
    lost = rank_process(process.pid, 1)
    begun = time.monotonic()
    os.kill(lost, how)
    while not (out / "FAILED").exists():
        assert time.monotonic() - begun < limit + 2
        time.sleep(0.02)
    _, errors = process.communicate(timeout=60)
    assert process.returncode not in (0, 75)
    (line,) = [line for line in errors.splitlines() if line.startswith("error: ")]
    assert "rank 0 lost touch with rank 1 (last heard of" in line
    assert "Traceback" not in errors
    assert not Path(f"/proc/{lost}").exists()


def test_an_error_of_the_first_rank_ends_all_at_once(one):
    begun = time.monotonic()
    said = train(one, "--procs", "2", code=2)
    assert [line for line in said.splitlines() if line.startswith("error: ")] == [
        f"error: run directory {one} exists: resume it with --resume auto, or choose another --out"
    ]
    assert time.monotonic() - begun < 60


def test_corrupt_samples_of_any_rank_are_reported_once(ranks, tmp_path):
    from PIL import Image

    photos, out = tmp_path / "photos", tmp_path / "run"
    photos.mkdir()
    for number in range(64):
        Image.new("L", (28, 28), number).save(photos / f"{number:02d}.png")
    broken = [f"{number:02d}.png" for number in (5, 21, 40)]
    for name in broken:
        (photos / name).write_bytes(b"no image")
    keys = ("--data", str(photos), "data.limit=null", "schedule.epochs=2")
    train_forked(ranks, out, *keys)
    reported = [row["key"] for row in rows(out, "events") if row["event"] == "bad_sample"]
    assert sorted(reported) == broken


def test_fine_tuning_with_two_ranks_gives_the_figure_of_one(ranks, one, tmp_path):
    found = []
    for world in (1, 2):
        keys = ("--baselines", "data.per_class=4", "train.global_batch=20")
        words = ("finetune", one, "--smoke", *keys, "--out", tmp_path / f"tuned-{world}")
        codes, said = ranks.run(*words, ranks=world)
        assert codes == [0] * world, said
        assert said.count("written to") == 1  # one rank tells
        found.append(json.loads((one / "finetune.json").read_text()))
    assert found[0]["accuracy"] == found[1]["accuracy"]
    assert found[0]["right"] == found[1]["right"]


def test_what_is_one_process_work_refuses_to_run_several_times(one):
    done = subprocess.run(
        [sys.executable, "-m", "mimsuite", "evaluate", str(one)],
        env={**os.environ, "RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0",
             "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"},
        capture_output=True,
        text=True,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        "error: started as one of 2 processes (WORLD_SIZE=2), but this command is the work of one: "
        f"start it once, as in `mimsuite evaluate {one}`"
    ]
