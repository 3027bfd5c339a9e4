"""Schedules: all kinds at their ends, and by the recipe's section."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch

from mimsuite import schedule
from mimsuite.config.keys.shared import ScheduleSection
from mimsuite.schedule import beta_at, cosine_per_step, decay_at, rate_at


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


# --- values worked out by hand --------------------------------------------------------------------

EARLY = 0.1 + 0.45 * (1 + math.sqrt(0.5))  # a quarter of the way from 1 down to 0.1
WARM = {"lr": 1.0, "min_lr": 0.1, "warmup_lr": 0.2}
VALUES = [
    (
        lambda at: schedule.half_cosine(at, **WARM, warmup_epochs=2, epochs=6),
        {0: 0.2, 1: 0.6, 2: 1.0, 3: EARLY, 4: 0.55, 6: 0.1},
    ),
    (lambda at: schedule.half_cosine(at, **WARM, warmup_epochs=2, epochs=2), {1: 0.6, 2: 0.1}),
    (
        lambda at: schedule.half_cosine(at, lr=1, min_lr=0.1, warmup_epochs=2, epochs=6),
        {0: 0.0, 1: 0.5},
    ),
    (
        lambda at: schedule.cosine_per_step(at, lr=1, min_lr=0.1, warmup=3, total=7, share=0.5),
        {0: 0.0, 1: 0.5, 2: 1.0, 3: 1.0, 5: EARLY, 7: 0.1, 9: 0.1},
    ),
    (
        lambda at: schedule.epoch_lagged(at, **WARM, warmup_epochs=2, epochs=6),
        {0: 0.2, 1: 0.2, 2: 0.6, 3: 0.775, 4: 0.55, 7: 0.1, 9: 0.1},
    ),
    (
        lambda at: schedule.cosine_ahead(at, **WARM, warmup=4, total=8),
        {0: 0.4, 2: 0.8, 3: 1.0, 4: EARLY, 5: 0.55, 7: 0.1, 9: 0.1},
    ),
    (
        lambda at: schedule.counted_warmup(at, lr=1, min_lr=0.1, warmup=4, total=8),
        {0: 0.25, 2: 0.75, 3: 1.0, 4: 1.0, 5: EARLY, 6: 0.55, 8: 0.1, 10: 0.1},
    ),
    (
        lambda at: schedule.counted_warmup(
            at, lr=1, min_lr=0.1, warmup=4, total=8, shape="linear", from_zero=False
        ),
        {0: 1.0, 4: 1.0, 5: 0.775, 8: 0.1, 10: 0.1},
    ),
    (lambda at: schedule.linear_ahead(at, lr=1, min_lr=0.1, total=4), {0: 0.775, 3: 0.1, 9: 0.1}),
    (
        lambda at: schedule.half_cosine_to(at, start=1, end=0.1, total=4),
        {0: EARLY, 1: 0.55, 3: 0.1, 9: 0.1},
    ),
    (lambda at: schedule.one_cycle(at, lr=1, warmup=1, total=1), {0: 1.0, 1: 4e-6}),
    (lambda at: schedule.one_cycle(at, lr=1, warmup=1, total=3), {0: 1.0, 1: 0.500002, 2: 4e-6}),
    (lambda at: schedule.one_cycle_beta(at, warmup=1, total=1), {0: 0.85, 1: 0.95}),
    (lambda at: schedule.one_cycle_beta(at, warmup=1, total=3), {0: 0.85, 1: 0.9, 2: 0.95}),
]


@pytest.mark.parametrize(("rate", "values"), VALUES)
def test_values_worked_out_by_hand(rate, values) -> None:
    assert {at: rate(at) for at in values} == pytest.approx(values, rel=1e-12)


# 1.5 epochs of 5 steps are 7.5 steps, the warm-up 1.5, and stretched by 1.3 the whole is 9.75.
SECTION = {"epochs": 1.5, "warmup_epochs": 0.3, "min_lr": 0.1}
OF_SECTIONS = [
    ("half-cosine", {}, lambda s: schedule.half_cosine(s / 5, **WARM, **LENGTHS)),
    ("epoch-lagged", {}, lambda s: schedule.epoch_lagged(s // 5, **WARM, **LENGTHS)),
    (
        "cosine-per-step",
        {"cosine_share": 0.5},
        lambda s: cosine_per_step(s, lr=1, min_lr=0.1, warmup=2, total=max(8, s + 1), share=0.5),
    ),
    (
        "cosine-ahead",
        {"stretch": 1.3},
        lambda s: schedule.cosine_ahead(s, **WARM, warmup=1, total=9),
    ),
    (
        "cosine-counted",
        {"stretch": 1.3},
        lambda s: schedule.counted_warmup(s, lr=1, min_lr=0.1, warmup=1, total=7),
    ),
    (
        "linear-ahead",
        {"stretch": 1.3, "warmup_epochs": 0.0},
        lambda s: schedule.linear_ahead(s, lr=1, min_lr=0.1, total=9),
    ),
    (
        "one-cycle",
        {},
        lambda s: schedule.one_cycle(s, lr=1, warmup=1.5, total=max(8, s + 1)),
    ),
]
LENGTHS = {"warmup_epochs": 0.3, "epochs": 1.5}


@pytest.mark.parametrize(("kind", "keys", "rate"), OF_SECTIONS)
def test_lengths_of_a_section_in_steps(kind, keys, rate) -> None:
    section = ScheduleSection(**SECTION | {"kind": kind, "warmup_lr": 0.2} | keys)
    assert [rate_at(section, 1, s, 5) for s in range(12)] == [rate(s) for s in range(12)]


def test_betas_and_decay_of_a_section() -> None:
    cycle = ScheduleSection(**SECTION, kind="one-cycle")
    for s in range(12):
        beta = schedule.one_cycle_beta(s, warmup=1.5, total=max(8, s + 1))
        assert beta_at(cycle, s, 5) == beta
    section = ScheduleSection(**SECTION, stretch=1.3)
    for s in range(12):
        decay = schedule.half_cosine_to(s, start=0.2, end=0.4, total=9)
        assert decay_at(section, 0.2, 0.4, s, 5) == decay
    assert decay_at(section, 0.2, None, 3, 5) == 0.2


def test_less_than_a_step_is_one_step() -> None:
    short = ScheduleSection(kind="linear-ahead", epochs=0.1, min_lr=0.1)
    assert rate_at(short, 1, 0, 5) == pytest.approx(0.1)
    assert decay_at(short, 0.2, 0.4, 0, 5) == pytest.approx(0.4)
