from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from mimsuite import config
from mimsuite.batch import Batch
from mimsuite.methods import build
from mimsuite.methods.mae_bands import MAEBands
from mimsuite.models import PlaceAndDates
from mimsuite.noise import Noise
from mimsuite.tokens.volume import sincos_series


def method(*keys: str) -> MAEBands:
    torch.manual_seed(0)
    found = build(config.load("bands/mae-tiny-places", ["model.encoder.depth=2", *keys]).recipe)
    assert isinstance(found, MAEBands)
    return found


def batch(count: int = 2) -> Batch:
    draw = torch.Generator().manual_seed(1)
    clip = torch.randn(count, 6, 3, 32, 32, generator=draw)
    views = {
        "clip": clip,
        "valid": torch.ones_like(clip, dtype=torch.uint8),
        "place": torch.tensor([[45.0, 9.0]] * count),
        "dates": torch.tensor([[[2021.0, 60.0], [2021.0, 120.0], [2021.0, 180.0]]] * count),
    }
    return Batch.of_views(views)


def step(model: MAEBands, given: Batch) -> Any:
    noise = Noise(0, 0, given.index)
    ctx = model.prepare(given, noise)
    return model(given, model.mask(given, noise, ctx), ctx)


def emptied(given: Batch, where: torch.Tensor, fill: float) -> Batch:
    """The batch with pixels that were not observed, and a number in their place."""
    views = dict(given.views)
    views["clip"] = views["clip"].masked_fill(where, fill)
    views["valid"] = views["valid"].masked_fill(where, 0)
    return Batch.of_views(views)


def test_the_loss_is_of_all_observed_hidden_pixels() -> None:
    model, given = method(), batch()
    out = step(model, given)
    hidden = model.encoder.tubelets(given.views["clip"], out.masks["clip"].masked)
    expected = (out.prediction - hidden).square().mean()
    assert out.loss.item() == pytest.approx(expected.item(), rel=1e-5)
    assert out.weight.item() == hidden.numel()


@pytest.mark.parametrize("normalize", ["false", "true"])
def test_no_data_never_counts(normalize: str) -> None:
    """Whatever is stored in hidden pixels without data, loss and gradient are the same."""
    model = method(f"target.normalize={normalize}")
    given = batch()
    masked = step(model, given).masks["clip"]
    flags = masked.dense().unsqueeze(-1).expand(-1, -1, 8 * 8 * 6).float()
    hidden = model._untubed(flags) > 0  # pixels of hidden tubelets
    where = hidden & (torch.rand(hidden.shape, generator=torch.Generator().manual_seed(2)) < 0.3)
    where[0, :, 0] = hidden[0, :, 0]  # of one date nothing that is hidden was observed
    found = []
    for fill in (0.0, 1e3):
        model.zero_grad()
        out = step(model, emptied(given, where, fill))
        out.loss.backward()
        found.append((out.loss.item(), model.decoder.head.weight.grad.clone(), out.weight.item()))
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-4)
    torch.testing.assert_close(found[0][1], found[1][1], rtol=1e-3, atol=1e-5)
    assert found[0][2] == (hidden & ~where).sum().item()


def test_a_batch_without_data_has_no_loss() -> None:
    given = batch()
    out = step(
        method(), emptied(given, torch.ones_like(given.views["clip"], dtype=torch.bool), 0.0)
    )
    assert out.loss.item() == 0
    out.loss.backward()


def test_place_and_dates_are_told_and_may_be_unknown() -> None:
    model, given = method(), batch()
    first = model.encoder.encode(given).tokens
    views = dict(given.views)
    views["place"] = torch.tensor([[-30.0, 150.0]] * 2)
    assert not torch.allclose(first, model.encoder.encode(Batch.of_views(views)).tokens, atol=1e-3)
    silent = PlaceAndDates(96, model.encoder.section)
    views["place"] = torch.full((2, 2), torch.nan)
    views["dates"] = torch.full((2, 3, 2), torch.nan)
    added = silent(views, model.grid)
    assert added is not None
    assert not added.any()
    assert step(model, Batch.of_views(views)).loss.isfinite()
    without = method("model.encoder.location=false", "model.encoder.dates=false")
    assert without.encoder.added(views, without.grid) is None


def test_positions_give_time_a_quarter() -> None:
    table = sincos_series(32, (3, 4, 5)).numpy()
    assert table.shape == (3, 4, 5, 32)
    assert np.array_equal(table[1, 0, 0, :8], table[1, 3, 4, :8])  # time
    assert np.array_equal(table[0, 2, 0, 8:20], table[2, 2, 4, 8:20])  # row
    assert np.array_equal(table[0, 0, 3, 20:], table[2, 3, 3, 20:])  # column
    omega = 10000.0 ** (-2 * np.arange(6) / 12)
    assert np.allclose(table[0, 2, 0, 8:20], [*np.sin(2 * omega), *np.cos(2 * omega)], atol=1e-6)


def test_pictures_are_grey_where_nothing_was_observed() -> None:
    model, given = method(), batch()
    where = torch.zeros_like(given.views["clip"], dtype=torch.bool)
    where[:, :, :, :5] = True
    given = emptied(given, where, 0.0)
    noise = Noise(0, 0, given.index)
    ctx = model.prepare(given, noise)
    original, masked, rebuilt = model.panels(given, model.mask(given, noise, ctx), ctx)
    assert original.images.shape == (2, 3, 3, 32, 32)
    assert (original.images[:, :, :, :5] == 0.5).all()
    assert (rebuilt.images[:, :, :, :5] == 0.5).all()
    assert (masked.images == 0).any()
