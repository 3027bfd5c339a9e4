"""Old checkpoints go, but never the one that a run would go on from."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from mimsuite.train import checkpoint
from mimsuite.train.checkpoint import CheckpointState
from mimsuite.train.retention import prune


def save(root: Path, step: int, loss: float | None = None) -> Path:
    facts = {"mean_loss": loss}
    return checkpoint.save(root, CheckpointState(step, {}, {"w": torch.ones(9)}, facts=facts))


def steps(root: Path) -> list[int]:
    return sorted(map(checkpoint.step_of, checkpoint.steps(root)))


def test_the_newest_stay(tmp_path):
    for step in range(1, 6):
        save(tmp_path, step)
        prune(tmp_path, step, keep=2)
        assert steps(tmp_path) == [max(1, step - 1), step] if step > 1 else [1]


def test_the_best_and_those_at_round_steps_stay_too(tmp_path):
    losses = {10: 0.9, 20: 0.2, 30: None, 40: float("nan"), 50: 0.5, 60: 0.4, 70: 0.3}
    for step, loss in losses.items():
        save(tmp_path, step, loss)
        prune(tmp_path, step, keep=1, best=True, every_steps=30)
    assert steps(tmp_path) == [20, 30, 60, 70]


def test_without_any_figure_the_newest_is_the_best(tmp_path):
    for step in (1, 2, 3):
        save(tmp_path, step)
        prune(tmp_path, step, keep=1, best=True)
    assert steps(tmp_path) == [3]


def test_damaged_ones_ahead_do_not_push_out_what_the_run_goes_on_from(tmp_path):
    for step in (10, 20, 30):
        save(tmp_path, step)
    for step in (20, 30):  # found at the resume, which went on from 10
        (tmp_path / f"step-{step:08d}" / "model.safetensors").write_bytes(b"")
    save(tmp_path, 12)
    prune(tmp_path, 12, keep=1)
    assert checkpoint.newest(tmp_path)[0] == tmp_path / "step-00000012"
    assert steps(tmp_path) == [12, 20, 30]
    save(tmp_path, 20)  # in place of the damaged one
    save(tmp_path, 25)
    prune(tmp_path, 25, keep=2)
    assert steps(tmp_path) == [20, 25, 30]


@pytest.mark.parametrize("file", ["model.safetensors", "MANIFEST.json"])
def test_nothing_goes_while_the_new_one_is_not_whole(tmp_path, file):
    for step in (1, 2):
        save(tmp_path, step)
    (tmp_path / "step-00000002" / file).unlink()
    prune(tmp_path, 2, keep=1)
    assert steps(tmp_path) == [1, 2]
    save(tmp_path, 3)
    prune(tmp_path, 3, keep=2)  # what lacks a file is no second one to go back to
    assert steps(tmp_path) == [1, 3]
