"""Training waits for a copy of its state, and a thread writes that copy."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from mimsuite.cluster.peers import ALONE
from mimsuite.config.keys.shared import CheckpointSection
from mimsuite.errors import UserError
from mimsuite.report import RunDirectory
from mimsuite.train import checkpoint
from mimsuite.train.checkpoint import CheckpointState
from mimsuite.train.host_copy import HostCopier
from mimsuite.train.saving import Saver
from mimsuite.train.tensor_files import write_tensors


class Run:
    """What a saver needs of a run directory."""

    def __init__(self, path: Path) -> None:
        self.checkpoints = path / "checkpoints"
        self.events: list[tuple[str, int]] = []

    def event(self, name: str, step: int) -> None:
        self.events.append((name, step))


@pytest.fixture
def run(tmp_path: Path) -> Any:
    return Run(tmp_path)


@pytest.fixture
def warned() -> list[str]:
    return []


@pytest.fixture
def saver(warned: list[str]) -> Saver:
    return Saver(ALONE, CheckpointSection(), warned.append)


def state(step: int, tensor: torch.Tensor | None = None) -> CheckpointState:
    return CheckpointState(step, {}, {"w": torch.ones(4) * step if tensor is None else tensor})


def test_training_waits_for_a_small_part_of_the_writing(run: RunDirectory, saver: Saver) -> None:
    tensors = {f"{n}": torch.rand(1024, 1024) for n in range(64)}
    begun, own = time.monotonic(), time.thread_time()
    saver.save(run, CheckpointState(1, {}, tensors, fixed=set(tensors)), last=False)
    blocked = time.monotonic() - begun
    saver.hold()
    held, own = time.monotonic() - begun, time.thread_time() - own
    saver.settle()
    whole = time.monotonic() - begun
    print(f"training waited {blocked:.3f} s of {whole:.3f} s, with the copy {held:.3f} s")
    print(f"and worked {own:.3f} s of it: {own / whole:.1%}")
    assert own < 0.1 * whole


def test_what_is_written_is_the_state_of_the_save(
    run: RunDirectory, saver: Saver, monkeypatch: pytest.MonkeyPatch
) -> None:
    may_write, save = threading.Event(), checkpoint.save
    monkeypatch.setattr(checkpoint, "save", lambda *args: (may_write.wait(10), save(*args))[1])
    weight = torch.ones(5)
    saver.save(run, state(1, weight), last=False)
    saver.hold()
    weight.add_(1)  # training goes on
    assert not list(run.checkpoints.glob("step-*"))
    saver.look()
    assert run.events == []
    may_write.set()
    saver.settle()
    assert run.events == [("save", 1)]
    (path,) = checkpoint.steps(run.checkpoints)
    assert torch.equal(checkpoint.read(path).model["w"], torch.ones(5))


def test_what_is_not_fixed_is_copied_at_once(run: RunDirectory, saver: Saver) -> None:
    weight, statistic = torch.ones(5), torch.ones(5)
    model = {"weight": weight, "statistic": statistic}
    saver.save(run, CheckpointState(1, {}, model, fixed={"weight"}), last=False)
    statistic.add_(1)  # in a forward pass
    saver.hold()
    weight.add_(1)
    saver.settle()
    (path,) = checkpoint.steps(run.checkpoints)
    assert all(
        torch.equal(tensor, torch.ones(5)) for tensor in checkpoint.read(path).model.values()
    )


def test_a_weight_that_changes_under_the_copy_is_noticed(run: RunDirectory, saver: Saver) -> None:
    weight = torch.ones(5)
    saver.save(run, CheckpointState(1, {}, {"w": weight}, fixed={"w"}), last=False)
    weight.detach().add_(1)
    with pytest.raises(RuntimeError, match=r"outside the optimizer's step and Method\.after_step"):
        saver.hold()
    saver.close()


def test_one_save_at_a_time_and_the_last_is_waited_for(
    run: RunDirectory, saver: Saver, monkeypatch: pytest.MonkeyPatch
) -> None:
    writing, save = list[int](), checkpoint.save

    def slow(root: Path, what: CheckpointState, *more: Any) -> Path:
        writing.append(what.step)
        assert len(writing) == 1
        time.sleep(0.05)
        path = save(root, what, *more)
        writing.clear()
        return path

    monkeypatch.setattr(checkpoint, "save", slow)
    for step in (1, 2, 3):
        saver.save(run, state(step), last=step == 3)
    assert run.events == [("save", 1), ("save", 2), ("save", 3)]


def test_a_failure_is_known_at_the_next_step_and_ends_training_when_it_repeats(
    run: RunDirectory, saver: Saver, warned: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> Path:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "save", full)
    for step in (1, 2, 3):
        saver.save(run, state(step), last=False)
        while saver._on_its_way is not None:
            saver.look()
        assert f"checkpoint at step {step} not written" in warned[-1]
        assert (saver.fault is not None) == (step == 3)
    with pytest.raises(UserError, match="No space left on device; make room there"):
        saver.settle()


def test_a_failure_of_the_last_save_is_final(
    run: RunDirectory, saver: Saver, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> Path:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(checkpoint, "save", full)
    with pytest.raises(UserError, match="Read-only"):
        saver.save(run, state(1), last=True)


def test_the_end_waits_for_the_writer(run: RunDirectory, saver: Saver) -> None:
    saver.save(run, state(1), last=False)
    saver.close()
    assert [path.name for path in checkpoint.steps(run.checkpoints)] == ["step-00000001"]


def test_files_are_those_of_safetensors(tmp_path: Path) -> None:
    tensors = {
        "flag": torch.tensor([True, False, True]),
        "half": torch.randn(3, 5).bfloat16(),
        "none": torch.zeros(0, 4),
        "one": torch.tensor(7),
        "turned": torch.randn(4, 6).T,
        "\u00e9": torch.arange(5, dtype=torch.int32),
    }
    facts = write_tensors(tmp_path / "t", tensors)
    back = load_file(tmp_path / "t")
    assert back.keys() == tensors.keys()
    assert all(torch.equal(back[name], tensors[name]) for name in tensors)
    assert facts["bytes"] == (tmp_path / "t").stat().st_size
    from mimsuite.data.shards.manifest import sha256_of

    assert facts["sha256"] == sha256_of(tmp_path / "t")
    copies = HostCopier().begin({"a": tensors, "b": {}}).done.result()
    assert copies["b"] == {}
    assert all(torch.equal(copies["a"][name], tensors[name]) for name in tensors)


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads /proc")
def test_the_copy_goes_back_to_the_system(run: RunDirectory, saver: Saver) -> None:
    from mimsuite.train.memory import keep_freed_memory

    def resident() -> float:
        return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 2**20

    with keep_freed_memory():
        tensors = {f"{n}": torch.rand(1024, 1024) for n in range(32)}
        before = resident()
        saver.save(run, CheckpointState(1, {}, tensors), last=True)
        held, until = resident() - before, time.monotonic() + 10
        while held >= 40 and time.monotonic() < until:  # the thread lets go of it, too
            time.sleep(0.01)
            held = resident() - before
    print(f"{held:.0f} MiB more after a save of 128 MiB")
    assert held < 40
