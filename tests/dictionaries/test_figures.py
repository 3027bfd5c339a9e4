"""Figures of dictionaries: what they are on rows whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mimsuite.dictionaries.build import build_dictionary
from mimsuite.dictionaries.dark import dark_matter
from mimsuite.dictionaries.figures import explained_variance, hoyer, kappa, r2
from mimsuite.dictionaries.measuring import measure, sparsity_curve, strongest_images
from mimsuite.dictionaries.rates import published_rate, rate_table
from mimsuite.dictionaries.rows import Rows
from mimsuite.dictionaries.scaling import Scaling
from mimsuite.dictionaries.stability import stability
from tests import needs
from tests.dictionaries.test_kinds import CODES, WIDTH, section

CPU = torch.device("cpu")


def table(images: int = 50, patches: int = 9) -> np.ndarray:
    random = np.random.default_rng(0)
    return (3 * random.normal(size=(images, patches, WIDTH)) + 5).astype(np.float16)


def test_scaled_rows_are_centred_with_a_mean_square_of_one_and_come_back() -> None:
    flat = table().reshape(-1, WIDTH)
    scaling = Scaling.of(flat)
    features = torch.from_numpy(flat).float()
    rows = scaling.scaled(features)
    assert rows.mean(dim=0).abs().max() < 1e-3
    assert float(rows.square().sum(dim=1).mean()) == pytest.approx(WIDTH, rel=1e-3)
    torch.testing.assert_close(scaling.restored(rows), features, atol=1e-4, rtol=1e-4)


def test_an_epoch_sees_every_row_once_in_an_order_of_its_own() -> None:
    numbered = np.arange(1000, dtype=np.float16).reshape(100, 10, 1)
    rows = Rows(numbered, Scaling(torch.zeros(1), torch.tensor(1.0)), CPU)
    epochs = [torch.cat(list(rows.shuffled(16, 0, epoch)))[:, 0].tolist() for epoch in (0, 0, 1)]
    assert len(set(epochs[0])) == len(epochs[0]) == 16 * rows.steps(16)
    assert epochs[0] == epochs[1] != epochs[2]
    assert epochs[0] != sorted(epochs[0])


def test_measured_in_batches_is_measured_at_once() -> None:
    torch.manual_seed(0)
    dictionary = build_dictionary(section("topk"), WIDTH).eval()
    whole = table(images=300)
    rows = Rows(whole, Scaling.of(whole.reshape(-1, WIDTH)), CPU)
    assert len(rows) > 2048
    found, use = measure(dictionary, rows)
    x = torch.cat(list(rows.batches(99)))
    coded = dictionary(x)
    assert found["explained_variance"] == pytest.approx(
        float(explained_variance(x, coded.output)), abs=1e-5
    )
    assert found["r2"] == pytest.approx(float(r2(x, coded.output)), abs=1e-5)
    assert found["l0"] == pytest.approx(float((coded.codes != 0).sum(dim=1).float().mean()))
    torch.testing.assert_close(use.share.float(), (coded.codes != 0).float().mean(dim=0))
    curve = sparsity_curve(dictionary, rows, 0)
    assert list(curve) == [1, 2, 4]
    assert curve[4] == pytest.approx(found["explained_variance"], abs=1e-3)
    assert dictionary.active == 4


def test_a_constant_offset_counts_for_r2_alone() -> None:
    x = torch.randn(500, WIDTH) + 10 * torch.arange(WIDTH)
    mean = x.mean(dim=0).expand_as(x)
    assert float(r2(x, mean)) > 0.99
    assert float(explained_variance(x, mean)) == pytest.approx(0, abs=1e-5)


def test_sparseness_is_one_for_rows_of_one_code() -> None:
    one, many = torch.eye(CODES)[:5] * 3, torch.ones(5, CODES)
    for measured in (hoyer, kappa):
        torch.testing.assert_close(measured(one), torch.ones(5), atol=1e-4, rtol=0)
        assert measured(many).max() < 0.05


def test_strongest_images_are_those_of_the_largest_code() -> None:
    torch.manual_seed(0)
    dictionary = build_dictionary(section("topk"), WIDTH).eval()
    whole = table()
    rows = Rows(whole, Scaling.of(whole.reshape(-1, WIDTH)), CPU)
    codes = torch.tensor([3, 17])
    tops = torch.stack([dictionary.encode(rows.image(n)).amax(dim=0) for n in range(50)])
    found = strongest_images(dictionary, rows, codes, 4)
    for code, images in zip(codes.tolist(), found, strict=True):
        best = tops[:, code].topk(4)
        assert images == best.indices[best.values > 0].tolist()


def test_dark_matter_tells_linear_errors_from_others() -> None:
    x = torch.randn(4000, WIDTH)
    linear = dark_matter(x, x @ torch.randn(WIDTH, WIDTH))
    assert linear is not None
    assert linear["error"] > 0.999
    other = dark_matter(x, torch.randn(4000, WIDTH))
    assert other is not None
    assert abs(other["error"]) < 0.05
    assert dark_matter(x[:50], x[:50]) is None  # too few rows to fit


def test_stability_is_one_for_the_same_atoms_in_another_order() -> None:
    needs.module("scipy")
    atoms = torch.randn(CODES, WIDTH)
    order = torch.randperm(CODES)
    assert stability(atoms, 3 * atoms[order]) == pytest.approx(1, abs=1e-5)
    assert stability(atoms, torch.randn(CODES, WIDTH)) < 0.8


def test_rates_warm_up_and_the_published_first_step_does_not() -> None:
    rates = rate_table(1e-3, 1e-5, 30, 6, 1e-4)
    assert (rates[0], max(rates)) == pytest.approx((1e-4, 1e-3))
    assert rates[5] == rates[6] > rates[7] > rates[29] > 1e-5
    assert published_rate(rates, 0, 1e-2, 1e-5) == 1e-2
    assert published_rate(rates, 4, 1e-2, 1e-5) == rates[4]
    assert published_rate(rates, 30, 1e-2, 1e-5) == 1e-5
