from __future__ import annotations

import pytest
import torch

from mimsuite.evaluate.bootstrap import balancing_weights, paired_interval
from mimsuite.evaluate.metrics import balanced_accuracy


def test_equal_models_differ_by_nothing() -> None:
    right = torch.rand(3, 50) > 0.4
    interval = paired_interval(right, right)
    assert (interval.difference, interval.low, interval.high) == (0.0, 0.0, 0.0)
    assert (interval.seeds, interval.samples) == (3, 50)


def test_width_is_that_of_the_normal_approximation() -> None:
    generator = torch.Generator().manual_seed(0)
    ours = torch.rand(2000, generator=generator) < 0.8
    theirs = torch.rand(2000, generator=generator) < 0.7
    gain = ours.double() - theirs.double()
    half = 1.96 * float(gain.std()) / 2000**0.5
    interval = paired_interval(ours, theirs)
    assert interval.difference == pytest.approx(float(gain.mean()))
    assert interval.low == pytest.approx(float(gain.mean()) - half, abs=0.1 * half)
    assert interval.high == pytest.approx(float(gain.mean()) + half, abs=0.1 * half)


def test_pairing_takes_out_what_both_share() -> None:
    generator = torch.Generator().manual_seed(0)
    easy = torch.rand(500, generator=generator) < 0.5
    ours = easy | (torch.arange(500) < 20)
    paired = paired_interval(ours, easy)
    shuffled = paired_interval(ours[torch.randperm(500, generator=generator)], easy)
    assert paired.low > 0 > shuffled.low
    assert paired.high - paired.low < 0.5 * (shuffled.high - shuffled.low)


def test_seeds_that_disagree_widen_the_interval() -> None:
    ours = torch.stack([torch.ones(200), torch.zeros(200), torch.ones(200)])
    interval = paired_interval(ours, torch.zeros(3, 200))
    assert interval.difference == pytest.approx(2 / 3)
    assert interval.low == pytest.approx(0.0)
    assert interval.high == pytest.approx(1.0)


def test_weights_give_balanced_accuracy() -> None:
    labels = torch.tensor([0] * 30 + [1] * 5 + [4] * 2)
    ours, theirs = torch.randint(5, (2, 37), generator=torch.Generator().manual_seed(1))
    interval = paired_interval(ours == labels, theirs == labels, weights=balancing_weights(labels))
    expected = balanced_accuracy(ours, labels) - balanced_accuracy(theirs, labels)
    assert interval.difference == pytest.approx(expected)


def test_unpaired_scores_are_refused() -> None:
    with pytest.raises(ValueError, match="not paired"):
        paired_interval(torch.zeros(3), torch.zeros(4))
