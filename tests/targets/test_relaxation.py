"""Relaxed draws of codes, and what holds codes in use."""

from __future__ import annotations

import math

import pytest
import torch

from mimsuite.noise import Noise
from mimsuite.targets.relaxation import eased, kl_to_uniform, perplexity, relaxed

CHANCES = torch.tensor([0.5, 0.3, 0.2])


def uniform(rows: int) -> torch.Tensor:
    return Noise(0, 0, torch.arange(rows)).rows("gumbel", 3)


def test_the_largest_weight_is_an_exact_draw_at_any_temperature() -> None:
    noise = uniform(20_000)
    scores = CHANCES.log().expand(20_000, 3)
    soft, hard = (relaxed(scores, noise, temperature) for temperature in (2.0, 0.01))
    torch.testing.assert_close(soft.sum(-1), torch.ones(20_000))
    assert torch.equal(soft.argmax(-1), hard.argmax(-1))
    drawn = torch.bincount(hard.argmax(-1), minlength=3) / 20_000
    torch.testing.assert_close(drawn, CHANCES, atol=0.015, rtol=0)
    assert hard.amax(-1).median() > 0.999
    assert soft.amax(-1).median() < 0.9


def test_a_draw_has_a_gradient() -> None:
    scores = torch.zeros(2, 3, requires_grad=True)
    relaxed(scores, uniform(2), 1.0)[:, 0].sum().backward()
    assert scores.grad is not None
    assert scores.grad.abs().sum() > 0


def test_divergence_and_perplexity_at_their_ends() -> None:
    even, sure = torch.zeros(2, 4), torch.tensor([[99.0, 0, 0, 0], [0, 99.0, 0, 0]])
    torch.testing.assert_close(kl_to_uniform(even), torch.zeros(2))
    torch.testing.assert_close(kl_to_uniform(sure), torch.full((2,), math.log(4)))
    assert float(perplexity(even)) == pytest.approx(4)
    assert float(perplexity(sure)) == pytest.approx(2)
    assert float(perplexity(sure[:1])) == pytest.approx(1)


def test_a_value_that_changes_over_steps() -> None:
    assert eased(0, 100, 1.0, 0.5) == 1.0
    assert eased(50, 100, 1.0, 0.5) == pytest.approx(0.75)
    assert eased(100, 100, 1.0, 0.5) == eased(10**6, 100, 1.0, 0.5) == 0.5
    assert eased(0, 0, 1.0, 0.5) == 0.5
