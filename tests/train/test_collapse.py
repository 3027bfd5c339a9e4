"""Collapse is noticed once, forgotten when it passes, and part of the checkpoint."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from mimsuite.config.keys.shared import LogSection
from mimsuite.targets import channel_deviation
from mimsuite.train.collapse import CollapseWatch


def watch(**keys: Any) -> CollapseWatch:
    return CollapseWatch(LogSection(**keys), ("deviation", "rankme"), total=100)


def test_a_fall_below_a_share_of_the_early_maximum_is_told_once() -> None:
    seen = watch()
    assert seen.add(5, {"deviation": 1.0, "rankme": 8.0}) == []
    assert seen.add(10, {"deviation": 2.0}) == []
    assert seen.add(20, {"deviation": 50.0, "rankme": 7.0}) == []  # later maxima do not count
    (fallen,) = seen.add(30, {"deviation": 0.19})
    assert (fallen.term, fallen.early) == ("deviation", 2.0)
    assert "deviation is 0.19" in str(fallen)
    assert seen.note == "collapse: deviation"
    assert not seen.must_stop
    assert seen.add(40, {"deviation": 0.1}) == []
    assert seen.add(50, {"deviation": 0.3}) == []
    assert seen.note == ""
    assert seen.add(60, {"deviation": float("nan")}) == []


def test_it_may_stop_training_or_say_nothing() -> None:
    for collapse, stops, told in (("stop", True, 1), ("off", False, 0)):
        seen = watch(collapse=collapse)
        seen.add(1, {"rankme": 10.0})
        assert len(seen.add(50, {"rankme": 0.5})) == told
        assert seen.must_stop is stops


def test_a_resumed_watch_knows_the_early_maximum() -> None:
    first, second = watch(), watch()
    first.add(5, {"deviation": 1.0})
    second.load_state_dict(first.state_dict())
    assert second.add(50, {"deviation": 0.05})


@pytest.mark.parametrize("world", [1, 2, 4])
def test_the_deviation_is_that_of_all_ranks(world: int) -> None:
    tokens = torch.randn(8, 5, 3) * torch.tensor([1.0, 2.0, 0.5]) + 7
    parts = tokens.chunk(world)
    moments: list[torch.Tensor] = []
    for part in parts:
        channel_deviation(part, lambda own: moments.append(own) or own)
    found = channel_deviation(parts[0], lambda own: torch.cat(moments))
    wanted = tokens.flatten(0, 1).std(0, correction=0).mean()
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)
    assert channel_deviation(torch.ones(4, 3), lambda own: own) == 0
