"""Three and more ranks: a run that was stopped ends with the bits of one that was not.

Of two summands the order does not show; of three it does.
"""

from __future__ import annotations

import shutil
import signal
from pathlib import Path

import pytest

from tests.cluster.test_ranks import figures, rows, start, tensors, wait_for_step

KEYS = (
    "train.ema=0.9",
    "data.workers=0",
    "data.limit=72",
    "train.global_batch=12",
    "train.micro_batch=2",
    "data.lanes=12",
    "schedule.epochs=2",
    "schedule.warmup_epochs=0",
    "log.every_steps=1",
    "log.pictures_every_epochs=null",
    "checkpoint.every_steps=4",
    "checkpoint.every_minutes=null",
    "checkpoint.keep=9",
)
LAST = 2 * 72 // 12
IMAGES, MOMENTUM = "image/mae-tiny-fashion", "image/ijepa-tiny-clipart"
STATISTICS = "points/mae-tiny-furniture"  # batch norms


@pytest.fixture(scope="module")
def train(ranks):
    def run(recipe: str, out: Path, *words: object, world: int) -> None:
        words = (recipe, "--smoke", "--out", out, *KEYS, *words)
        codes, said = ranks.run("pretrain", *words, ranks=world)
        assert codes == [0] * world, said

    return run


def assert_same(ours: Path, wanted: Path, step: int) -> None:
    assert figures(ours) == figures(wanted)
    found, expected = tensors(ours, step), tensors(wanted, step)
    assert found.keys() == expected.keys()
    for name, content in expected.items():
        differ = [k for k, value in content.items() if found[name][k].tobytes() != value.tobytes()]
        assert not differ, (name, differ)


def stopped(whole: Path, out: Path, step: int) -> None:
    """A copy of a run as if it had been killed after the checkpoint of a step."""
    shutil.copytree(whole, out)
    (out / "DONE").unlink()
    for checkpoint in (out / "checkpoints").iterdir():
        if int(checkpoint.name.removeprefix("step-")) > step:
            shutil.rmtree(checkpoint)


CASES = [
    pytest.param(IMAGES, "ddp", 3),
    pytest.param(MOMENTUM, "ddp", 3),
    pytest.param(IMAGES, "fsdp", 3, marks=pytest.mark.slow),
    pytest.param(STATISTICS, "ddp", 3, marks=pytest.mark.slow),
    pytest.param(MOMENTUM, "fsdp", 3, marks=pytest.mark.slow),
    pytest.param(IMAGES, "ddp", 4, marks=pytest.mark.slow),
    pytest.param(IMAGES, "fsdp", 4, marks=pytest.mark.slow),
    pytest.param(MOMENTUM, "ddp", 4, marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("recipe", "parallel", "world"), CASES)
def test_a_resumed_run_equals_one_that_went_on(train, recipe, parallel, world, tmp_path):
    whole, out = tmp_path / "whole", tmp_path / "run"
    keys = [f"train.parallel={parallel}"]
    keys += [] if world == 3 else ["data.lanes=8", "data.limit=64", "train.global_batch=8"]
    last = 2 * 64 // 8 if world == 4 else LAST
    train(recipe, whole, *keys, world=world)
    stopped(whole, out, 4)
    train(recipe, out, *keys, "--resume", "auto", world=world)
    assert [row["step"] for row in rows(out, "events") if row["event"] == "resume"] == [4]
    assert_same(out, whole, last)


@pytest.mark.slow
@pytest.mark.parametrize("procs", [3, 4])
@pytest.mark.parametrize("keys", [["ddp"], ["fsdp"], ["fsdp", "checkpoint.gather_gib=1e-6"]])
def test_killed_processes_go_on_exactly(procs, keys, tmp_path):
    keys = (
        *("--procs", str(procs), "data.limit=96", "train.global_batch=12", "data.lanes=12"),
        *(f"train.parallel={keys[0]}", *keys[1:]),
    )
    whole, out = tmp_path / "whole", tmp_path / "run"
    assert start(whole, *keys).wait() == 0
    process = start(out, *keys)
    wait_for_step(out, process, 8)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    again = start(out, *keys, "--resume", "auto")
    _, errors = again.communicate()
    assert again.returncode == 0, errors
    assert_same(out, whole, 4 * 96 // 12)
