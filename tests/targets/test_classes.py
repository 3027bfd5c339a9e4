from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from timm.data.mixup import mixup_target

from mimsuite.noise import Noise
from mimsuite.targets import PairMix, soft_cross_entropy, soft_targets
from mimsuite.targets.classes import beta, cutmix_box


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0])
def test_soft_targets_are_those_of_timm(smoothing: float) -> None:
    labels = torch.tensor([0, 3, 2, 2])
    expected = mixup_target(labels, 5, lam=1.0, smoothing=smoothing)
    torch.testing.assert_close(soft_targets(labels, 5, smoothing), expected)


def test_label_outside_the_classes_is_not_learnt_silently() -> None:
    rows = soft_targets(torch.tensor([-1, 0, 5]), 5, 0.1)
    assert rows.isnan().all(1).tolist() == [True, False, True]


def test_loss_equals_cross_entropy_with_smoothing() -> None:
    logits, labels = torch.randn(6, 5), torch.randint(5, (6,))
    expected = torch.nn.functional.cross_entropy(logits, labels, label_smoothing=0.1)
    torch.testing.assert_close(soft_cross_entropy(logits, soft_targets(labels, 5, 0.1)), expected)


@pytest.mark.parametrize("alpha", [0.3, 0.8, 1.0, 4.0])
def test_beta_draws_have_the_right_distribution(alpha: float) -> None:
    uniform = (torch.arange(20_000, dtype=torch.float64) + 0.5) / 20_000
    draws = beta(uniform, alpha)
    reference = np.sort(np.random.default_rng(0).beta(alpha, alpha, size=200_000))
    quantiles = torch.linspace(0.01, 0.99, 50, dtype=torch.float64)
    expected = np.quantile(reference, quantiles.numpy())
    np.testing.assert_allclose(torch.quantile(draws, quantiles).numpy(), expected, atol=0.01)
    assert float(draws.var()) == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=1e-3)


def test_beta_of_alpha_one_is_the_uniform_draw_itself() -> None:
    uniform = torch.rand(100)
    torch.testing.assert_close(beta(uniform, 1.0), uniform, atol=1e-6, rtol=1e-5)


@settings(max_examples=50, deadline=None)
@given(
    share=st.floats(0, 1),
    row=st.floats(0, 0.999),
    column=st.floats(0, 0.999),
    height=st.integers(1, 17),
    width=st.integers(1, 17),
)
def test_box_follows_the_rule_of_timm(
    share: float, row: float, column: float, height: int, width: int
) -> None:
    share, row, column = (float(torch.tensor(x)) for x in (share, row, column))
    box = cutmix_box(
        torch.tensor([share]), torch.tensor([row]), torch.tensor([column]), height, width
    )[0]
    expected = torch.zeros(height, width, dtype=torch.bool)
    ratio = float((1 - torch.tensor(share)).sqrt())
    cut_h, cut_w = int(height * ratio), int(width * ratio)
    y, x = int(height * row), int(width * column)
    expected[max(0, y - cut_h // 2) : y + cut_h // 2, max(0, x - cut_w // 2) : x + cut_w // 2] = (
        True
    )
    assert torch.equal(box, expected)


def images_that_tell_their_sample(count: int) -> torch.Tensor:
    return torch.arange(count, dtype=torch.float32).view(-1, 1, 1, 1).expand(-1, 3, 16, 16)


def test_mixup_mixes_image_and_target_by_the_same_share() -> None:
    images = images_that_tell_their_sample(8)
    target = soft_targets(torch.arange(8), 8)
    uniform = Noise(0, 0, torch.arange(8)).rows("mixup", PairMix.NOISE)
    mixed, soft = PairMix(mixup=0.8)(images, target, uniform)
    expected = soft @ torch.arange(8.0)
    torch.testing.assert_close(mixed[:, 0, 0, 0], expected)
    torch.testing.assert_close(soft.sum(1), torch.ones(8))
    assert torch.equal(images, images_that_tell_their_sample(8))  # the input is left alone


def test_cutmix_share_is_the_share_of_pixels() -> None:
    images = images_that_tell_their_sample(64)
    target = soft_targets(torch.arange(64), 64)
    uniform = Noise(3, 0, torch.arange(64)).rows("mixup", PairMix.NOISE)
    mixed, soft = PairMix(cutmix=1.0)(images, target, uniform)
    own = (mixed == images).all(1).float().mean((1, 2))
    torch.testing.assert_close(soft.diagonal(), own)
    assert 0.3 < float(own.mean()) < 0.9


def test_both_kinds_are_drawn_where_both_are_on() -> None:
    images = torch.rand(200, 3, 8, 8)
    uniform = Noise(0, 0, torch.arange(200)).rows("mixup", PairMix.NOISE)
    mixed, _ = PairMix(0.8, 1.0, switch=0.5)(images, torch.zeros(200, 2), uniform)
    whole = (mixed == images) | (mixed == images.view(100, 2, 3, 8, 8).flip(1).view_as(images))
    pasted = whole.flatten(1).all(1).float().mean()  # every pixel is from one of the two images
    assert 0.35 < float(pasted) < 0.65


def test_result_does_not_depend_on_the_cut_into_micro_batches() -> None:
    images, target = torch.rand(8, 3, 8, 8), torch.rand(8, 4)
    mix = PairMix(0.8, 1.0)

    def run(start: int, stop: int) -> tuple[torch.Tensor, torch.Tensor]:
        uniform = Noise(1, 7, torch.arange(start, stop)).rows("mixup", PairMix.NOISE)
        return mix(images[start:stop], target[start:stop], uniform)

    whole, parts = run(0, 8), [run(0, 2), run(2, 6), run(6, 8)]
    assert torch.equal(whole[0], torch.cat([part[0] for part in parts]))
    assert torch.equal(whole[1], torch.cat([part[1] for part in parts]))


def test_odd_batch_is_refused() -> None:
    with pytest.raises(ValueError, match="even batch"):
        PairMix(1.0)(torch.rand(3, 3, 4, 4), torch.rand(3, 2), torch.rand(3, PairMix.NOISE))


def test_share_of_own_label_is_uniform_for_alpha_one() -> None:
    index = torch.arange(4000)
    uniform = Noise(0, 0, index).rows("mixup", PairMix.NOISE)
    _, soft = PairMix(1.0)(torch.zeros(4000, 1, 1, 1), torch.eye(2).repeat(2000, 1), uniform)
    own = soft[:, 0][0::2]
    assert float(own.mean()) == pytest.approx(0.5, abs=0.02)
    assert float(own.std()) == pytest.approx(math.sqrt(1 / 12), abs=0.01)
