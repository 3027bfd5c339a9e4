"""A momentum copy follows its module, after good steps only, and is part of the state."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from mimsuite.models import momentum
from mimsuite.models.momentum import MomentumCopy

GOOD, BAD = torch.tensor(0.0), torch.tensor(1.0)


def moved(model: nn.Module) -> nn.Module:
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1)
    return model


def test_it_moves_by_one_minus_its_momentum():
    model = nn.Sequential(nn.Linear(3, 4), nn.Dropout(0.5))
    teacher = MomentumCopy(model)
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    teacher.follow(moved(model), 0.75, BAD)
    assert all(torch.equal(before[name], value) for name, value in teacher.state_dict().items())
    teacher.follow(model, 0.75, GOOD)
    for name, value in teacher.state_dict().items():
        torch.testing.assert_close(value, before[name] + 0.25)


def test_it_is_never_trained_and_always_in_eval_mode():
    model = nn.Sequential(nn.Linear(3, 4), nn.Dropout(0.5))
    owner = nn.ModuleDict({"student": model, "teacher": MomentumCopy(model)}).train()
    images = torch.ones(2, 3)
    assert torch.equal(owner["teacher"](images), owner["teacher"](images))
    assert not owner["teacher"](images).requires_grad
    trained = {name for name, value in owner.named_parameters() if value.requires_grad}
    assert trained == {"student.0.weight", "student.0.bias"}
    assert "teacher.module.0.weight" in owner.state_dict()


@pytest.mark.parametrize("at_once", [1, 100, 1 << 20])
def test_the_fused_form_is_the_same_average(at_once, monkeypatch):
    monkeypatch.setattr(momentum, "_AT_ONCE", at_once)
    own, new = ([torch.randn(n, 3) for n in (1, 5, 2, 40)] for _ in range(2))
    for weight in (0.1, 0.0):
        wanted = [torch.lerp(a, b, weight) for a, b in zip(own, new, strict=True)]
        momentum.follow_fused(own, new, torch.tensor(weight))
        torch.testing.assert_close(own, wanted, atol=1e-6, rtol=1e-6)


def test_tensors_are_taken_together_up_to_a_bound(monkeypatch):
    monkeypatch.setattr(momentum, "_AT_ONCE", 24)
    pairs = [(torch.zeros(n), torch.ones(n)) for n in (3, 3, 1, 9, 1)]  # 12, 12, 4, 36, 4 bytes
    parts = [[len(one) for one in own] for own, _ in momentum._parts(pairs)]
    assert parts == [[3, 3], [1], [9], [1]]
    new = [one for _, several in momentum._parts(pairs) for one in several]
    assert all(a is b for a, (_, b) in zip(new, pairs, strict=True))


def test_nothing_to_average_is_no_fault():
    momentum.follow([], [], 0.9, GOOD)


def test_a_rising_momentum_stays_at_its_end():
    values = [momentum.rising(step, 0.5, 0.9, 4) for step in (0, 1, 4, 9)]
    assert values == pytest.approx([0.5, 0.6, 0.9, 0.9])


@pytest.mark.parametrize(("warmup", "first"), [(0, 1.0), (1, 0.3), (2, 0.3)])
def test_a_warm_up_begins_at_the_start(warmup, first):
    ends = {"start": 0.3, "peak": 1.0, "end": 0.2}
    assert momentum.warm_cosine(0, **ends, warmup=warmup, total=9) == pytest.approx(first)
    assert momentum.warm_cosine(1, **ends, warmup=3, total=9) == pytest.approx(0.65)
    assert momentum.warm_cosine(9, **ends, warmup=warmup, total=9) == 0.2
