"""Schedules: all kinds at their ends, and by the recipe's section."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch

from mimsuite.config.keys.shared import ScheduleSection
from mimsuite.schedule import beta_at, cosine_per_step, rate_at


def test_warm_up_of_cosine_per_step_ends_on_the_peak() -> None:
    rates = [cosine_per_step(i, lr=2.0, min_lr=0.1, warmup=5, total=20) for i in range(20)]
    assert rates[:5] == pytest.approx(np.linspace(0, 2.0, 5))
    assert rates[4] == rates[5] == 2.0  # the peak is used twice
    assert all(a > b for a, b in itertools.pairwise(rates[5:]))
    assert rates[-1] > 0.1  # the end is never reached


@pytest.mark.parametrize("warmup", [0, 1])
def test_short_warm_ups(warmup: int) -> None:
    first = cosine_per_step(0, lr=2.0, min_lr=0.1, warmup=warmup, total=9)
    assert first == (0.0 if warmup else 2.0)
    assert cosine_per_step(1, lr=2.0, min_lr=0.1, warmup=warmup, total=9) <= 2.0


@pytest.mark.parametrize("kind", ["half-cosine", "cosine-per-step"])
def test_any_epochs_make_a_schedule(kind: str) -> None:
    for epochs, warmup, steps in ((1.0, 0.0, 1), (2.0, 2.0, 7), (0.5, 0.1, 9), (3.0, 1.0, 5)):
        section = ScheduleSection(kind=kind, epochs=epochs, warmup_epochs=warmup, min_lr=1e-5)
        rates = [rate_at(section, 1e-3, i, steps) for i in range(round(epochs * steps) + 2)]
        assert all(math.isfinite(rate) and -1e-12 <= rate <= 1e-3 + 1e-12 for rate in rates)


@pytest.mark.parametrize(("total", "share"), [(100, 0.3), (37, 0.3), (10, 0.5)])
def test_one_cycle_is_torch_s(total: int, share: float) -> None:
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=1e-4)
    theirs = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=1e-4, total_steps=total, pct_start=share
    )
    section = ScheduleSection(kind="one-cycle", epochs=1, warmup_epochs=share)
    for step in range(total):
        group = optimizer.param_groups[0]
        assert rate_at(section, 1e-4, step, total) == pytest.approx(group["lr"], rel=1e-9)
        assert beta_at(section, step, total) == pytest.approx(group["betas"][0], rel=1e-9)
        optimizer.step()
        if step < total - 1:
            theirs.step()
    assert beta_at(ScheduleSection(epochs=1), 3, total) is None
