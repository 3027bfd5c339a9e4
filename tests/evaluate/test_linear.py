from __future__ import annotations

import pytest
import torch
from sklearn.linear_model import LogisticRegression

from mimsuite.evaluate.metrics import accuracy
from mimsuite.evaluate.probes.linear import LinearGrid, fit_heads, search
from mimsuite.evaluate.split import stratified_holdout

QUICK = LinearGrid((1e-3, 1e-2), (0.0, 3.0), batch=64, epochs=2, min_steps=60)


def blobs(samples: int, seed: int, spread: float = 1.0) -> tuple[torch.Tensor, torch.Tensor]:
    """Four classes around fixed centres in 12 dimensions of very different scales."""
    centres = torch.randn(4, 12, generator=torch.Generator().manual_seed(9))
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(samples) % 4
    x = centres[labels] + spread * torch.randn(samples, 12, generator=generator)
    return x * torch.logspace(-3, 3, 12) + 100.0, labels


def test_each_head_is_what_it_would_be_alone() -> None:
    x, y = blobs(100, 0)
    settings = [(1e-3, 0.0), (1e-2, 3.0), (3e-2, 0.3)]
    together = fit_heads(x, y, 4, settings, QUICK, seed=0)
    for number, setting in enumerate(settings):
        alone = fit_heads(x, y, 4, [setting], QUICK, seed=0)
        torch.testing.assert_close(together.weight[:, [number]], alone.weight)
        torch.testing.assert_close(together.logits(x)[:, [number]], alone.logits(x))


def test_step_is_that_of_torch_s_adamw_on_cross_entropy() -> None:
    # In float64: the bias has a gradient of zero at first, whose rounding AdamW blows up.
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(40, 12, generator=generator, dtype=torch.float64)
    y = torch.arange(40) % 4
    grid = LinearGrid(batch=40, epochs=7, min_steps=1)
    heads = fit_heads(x, y, 4, [(1e-2, 0.5)], grid, seed=0)

    rows = (x - x.mean(0)) / x.std(0, correction=0)
    linear = torch.nn.Linear(12, 4, dtype=torch.float64)
    torch.nn.init.zeros_(linear.weight)
    torch.nn.init.zeros_(linear.bias)
    groups = [
        {"params": [linear.weight], "weight_decay": 0.5},
        {"params": [linear.bias], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=1e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=7)
    for _ in range(7):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(linear(rows), y).backward()
        optimizer.step()
        schedule.step()
    torch.testing.assert_close(heads.weight[:, 0].T, linear.weight.detach())
    torch.testing.assert_close(heads.bias[0], linear.bias.detach())


def test_heads_are_as_good_as_logistic_regression() -> None:
    (x, y), (tx, ty) = blobs(400, 0, 2.0), blobs(400, 1, 2.0)
    parts = stratified_holdout(y, 0.2, 0)
    choice = search({"x": x}, y, 4, parts, LinearGrid(), seed=0)
    setting = [(choice.learning_rate, choice.weight_decay)]
    guess = fit_heads(x, y, 4, setting, LinearGrid(), seed=0).logits(tx)[:, 0].argmax(1)
    mean, std = x.mean(0), x.std(0)
    reference = LogisticRegression(C=1.0, max_iter=1000).fit((x - mean) / std, y)
    assert accuracy(guess, ty) > reference.score((tx - mean) / std, ty) - 0.02


def test_validation_chooses_the_features_that_know_the_classes() -> None:
    x, y = blobs(200, 0)
    noise = torch.randn(200, 12, generator=torch.Generator().manual_seed(3))
    parts = stratified_holdout(y, 0.25, 0)
    choice = search({"noise": noise, "good": x}, y, 4, parts, QUICK, seed=0)
    assert choice.features == "good"
    assert choice.validation_accuracy > 0.8


def test_held_out_samples_do_not_train_the_search() -> None:
    x, y = blobs(80, 0)
    parts = stratified_holdout(y, 0.25, 0)
    spoilt = x.clone()
    spoilt[parts[1]] = 1e6  # would change mean and deviation if it were looked at
    heads = fit_heads(x[parts[0]], y[parts[0]], 4, [(1e-2, 0.0)], QUICK, 0)
    again = fit_heads(spoilt[parts[0]], y[parts[0]], 4, [(1e-2, 0.0)], QUICK, 0)
    assert torch.equal(heads.weight, again.weight)
    assert search({"x": spoilt}, y, 4, parts, QUICK, 0).validation_accuracy <= 0.5


def test_constant_features_are_harmless() -> None:
    x, y = blobs(60, 0)
    x[:, 3] = 7.0
    heads = fit_heads(x, y, 4, [(1e-2, 0.0)], QUICK, seed=0)
    assert heads.logits(x).isfinite().all()
    assert float(heads.scale[3]) == 0.0


def test_few_samples_still_get_the_least_number_of_steps() -> None:
    assert LinearGrid(batch=100, epochs=3, min_steps=50).steps(10) == 50
    assert LinearGrid(batch=100, epochs=3, min_steps=50).steps(10_001) == 303


def test_nothing_to_choose_from_is_an_error() -> None:
    with pytest.raises(ValueError, match="no features"):
        search({}, torch.zeros(2).long(), 2, (torch.tensor([0]), torch.tensor([1])), QUICK, 0)
