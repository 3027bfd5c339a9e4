"""Attentive masking: a partition, drawn without replacement in proportion to the weights."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mimsuite.config.keys.masks import AttentiveMaskSection
from mimsuite.masking import build_sampler
from mimsuite.noise import Noise

SAMPLER = build_sampler(AttentiveMaskSection(kind="attentive", ratio=0.7))


def rows(batch: int, width: int, seed: int = 0) -> Tensor:
    return Noise(seed, 0, torch.arange(batch)).rows("mask", width)


@given(st.integers(0, 10), st.lists(st.floats(0, 1), min_size=16, max_size=16))
@settings(max_examples=30, deadline=None)
def test_any_weights_give_a_partition(seed: int, weights: list[float]) -> None:
    guide = torch.tensor([weights])
    mask = SAMPLER(rows(1, 16, seed), (4, 4), guide)
    assert mask.visible.shape == (1, 4)  # int(16 * (1 - 0.7))
    both = torch.cat([mask.visible, mask.masked], 1)
    assert sorted(both[0].tolist()) == list(range(16))


def test_draws_have_the_probabilities_of_drawing_without_replacement() -> None:
    weights = [0.5, 0.2, 0.2, 0.1]
    sampler = build_sampler(AttentiveMaskSection(kind="attentive", ratio=0.5))
    drawn = sampler(rows(40_000, 4), (4,), torch.tensor([weights]).expand(40_000, 4)).visible
    for first, second in itertools.permutations(range(4), 2):
        share = ((drawn[:, 0] == first) & (drawn[:, 1] == second)).float().mean()
        exact = weights[first] * weights[second] / (1 - weights[first])
        assert share == pytest.approx(exact, abs=0.01), (first, second)


def test_the_scale_of_the_weights_and_zeros_do_not_matter() -> None:
    noise = rows(8, 16)
    guide = torch.rand(8, 16, generator=torch.Generator().manual_seed(0))
    same = SAMPLER(noise, (4, 4), guide).visible
    assert torch.equal(SAMPLER(noise, (4, 4), guide * 0.01).visible, same)
    guide[:, :12] = 0
    kept = SAMPLER(noise, (4, 4), guide).visible
    assert (kept >= 12).all()
    assert torch.isfinite(SAMPLER(noise, (4, 4), torch.zeros(8, 16)).visible).all()


def test_a_missing_guide_is_a_fault() -> None:
    assert SAMPLER.needs_guide
    with pytest.raises(ValueError, match="attention"):
        SAMPLER(rows(1, 16), (4, 4))
