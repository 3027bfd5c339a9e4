"""train.deterministic holds during a run, and only there."""

from __future__ import annotations

import pytest
import torch

from mimsuite import config
from mimsuite.errors import UserError
from mimsuite.methods.mae import MAE
from mimsuite.train.determinism import same_bits
from mimsuite.train.run import train

KEYS = ["data.limit=32", "train.global_batch=16", "schedule.epochs=1", "train.deterministic=true"]


def state() -> tuple[bool, bool]:
    return torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.deterministic


def test_it_holds_in_the_context_and_not_behind_it():
    before = state()
    with same_bits(False):
        assert state() == before
    with same_bits(True):
        assert state() == (True, True)
    assert state() == before


def test_the_steps_of_a_run_have_it(tmp_path, monkeypatch):
    seen, forward = [], MAE.forward

    def watched(self, *inputs):
        seen.append(state())
        return forward(self, *inputs)

    monkeypatch.setattr(MAE, "forward", watched)
    train(config.load("image/mae-tiny-fashion", KEYS, smoke=True), tmp_path / "run", quiet=True)
    assert set(seen) == {(True, True)}
    assert state() == (False, False)


def test_an_operation_without_such_a_form_is_named():
    numbers, places = torch.zeros(3), torch.tensor([0, 0])
    with pytest.raises(UserError, match=r"deterministic=true: put_ has no form"), same_bits(True):
        numbers.put_(places, torch.ones(2), accumulate=False)
    with pytest.raises(RuntimeError, match="another"), same_bits(True):
        raise RuntimeError("another")
