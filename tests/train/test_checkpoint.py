"""A final name means a whole checkpoint; damage is found and passed over."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch

from mimsuite import config
from mimsuite.cli.main import main
from mimsuite.errors import UserError
from mimsuite.report import RunDirectory
from mimsuite.report.files import read_lines
from mimsuite.train import checkpoint
from mimsuite.train.checkpoint import CheckpointState


def state(step: int) -> CheckpointState:
    tensors = {"w": torch.full((4, 3), float(step)), "b": torch.arange(3.0)}
    return CheckpointState(
        step, {"method": {"name": "mae"}}, tensors, {"w/step": torch.tensor(1.0)}, facts={"a": 1}
    )


def test_reads_back_what_was_saved(tmp_path: Path) -> None:
    path = checkpoint.save(tmp_path, state(7))
    back = checkpoint.read(path)
    assert path.name == "step-00000007"
    assert back.step == 7
    assert back.document == {"method": {"name": "mae"}}
    assert back.facts["a"] == 1
    assert torch.equal(back.model["w"], torch.full((4, 3), 7.0))
    assert torch.equal(back.optim["w/step"], torch.tensor(1.0))
    assert back.ema == {}


@pytest.mark.parametrize("name", ["model.safetensors", "optim.safetensors", "state.json"])
def test_one_flipped_bit_is_found_and_the_previous_used(tmp_path: Path, name: str) -> None:
    older, newer = (checkpoint.save(tmp_path, state(step)) for step in (1, 2))
    content = bytearray((newer / name).read_bytes())
    content[len(content) // 2] ^= 1
    (newer / name).write_bytes(content)
    found, rejected = checkpoint.newest(tmp_path)
    assert found == older
    assert rejected == [f"step-00000002: {name} does not match its sha256"]
    with pytest.raises(UserError, match="damaged"):
        checkpoint.read(newer)


def test_truncated_missing_and_foreign(tmp_path: Path) -> None:
    path = checkpoint.save(tmp_path, state(3))
    (path / "model.safetensors").write_bytes(b"")
    assert "0 bytes" in str(checkpoint.damage(path))
    (path / "model.safetensors").unlink()
    assert "FileNotFoundError" in str(checkpoint.damage(path))
    (path / "MANIFEST.json").write_text(json.dumps({"format": 99, "files": {}}))
    assert "newer than this version" in str(checkpoint.damage(path))
    assert checkpoint.newest(tmp_path) == (None, [f"step-00000003: {checkpoint.damage(path)}"])


def test_a_failed_save_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint.save(tmp_path, state(1))

    def full(*_: object) -> dict[str, object]:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "write_synced", full)
    with pytest.raises(OSError, match="No space"):
        checkpoint.save(tmp_path, state(2))
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000001"]


def test_everything_is_synced_before_the_final_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    real_sync, real_rename = os.fsync, os.rename

    def sync(handle: int) -> None:
        calls.append(f"sync {Path(os.readlink(f'/proc/self/fd/{handle}')).name}")
        real_sync(handle)

    def rename(source: Path, target: Path) -> None:
        calls.append(f"rename {Path(target).name}")
        real_rename(source, target)

    monkeypatch.setattr(os, "fsync", sync)
    monkeypatch.setattr(os, "rename", rename)
    checkpoint.save(tmp_path, state(5))
    assert calls[:3] == ["sync model.safetensors", "sync optim.safetensors", "sync state.json"]
    assert calls[3] == "sync MANIFEST.json"
    assert calls[4].startswith("sync .tmp-step-00000005-")
    assert calls[5:] == ["rename step-00000005", f"sync {tmp_path.name}"]


def test_clean_removes_leftovers(tmp_path: Path) -> None:
    for step in (4, 5):
        checkpoint.save(tmp_path, state(step))
    (tmp_path / ".tmp-step-00000009-dead").mkdir()
    (tmp_path / ".del-step-00000001-dead").mkdir()
    checkpoint.clean(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step-00000004", "step-00000005"]


def test_too_little_space_is_said_before_writing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint.save(tmp_path, state(1))
    usage = type("Usage", (), {"free": 10})
    monkeypatch.setattr(checkpoint.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(OSError, match="MiB free"):
        checkpoint.save(tmp_path, state(2))


def test_a_run_none_of_whose_checkpoints_can_be_read_is_not_begun_anew(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, words = tmp_path / "run", ["image/mae-tiny-fashion", "--smoke", "--device", "cpu"]
    run = RunDirectory.create(out, config.load(words[0]), resume=False)
    run.metrics(4, {"loss": 1.0})
    run.finish("PREEMPTED", step=4)
    for step in (2, 4):
        saved = checkpoint.save(run.checkpoints, state(step))
        (saved / "model.safetensors").unlink()
    assert main(["pretrain", *words, "--out", str(out), "--resume", "auto"]) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "error: " in line]
    assert "has no checkpoint that can be read, so it is left as it is: step-00000004: " in line
    assert [row["step"] for row in read_lines(out / "metrics.jsonl")] == [4]
    assert (out / "PREEMPTED").exists()
    assert len(checkpoint.steps(run.checkpoints)) == 2
