from __future__ import annotations

import pytest
import torch
from sklearn.linear_model import LogisticRegression

from mimsuite.errors import DataError
from mimsuite.evaluate.lowshot import _softmax_regression, low_shot


def blobs(samples: int = 120) -> tuple[torch.Tensor, torch.Tensor]:
    labels = torch.arange(samples) % 3
    generator = torch.Generator().manual_seed(0)
    return torch.eye(6)[labels] * 4 + torch.randn(samples, 6, generator=generator), labels


def test_more_labels_help_and_every_draw_is_told() -> None:
    result = low_shot(*blobs(), shots=(1, 20), draws=5, seed=0)
    for kind in ("linear", "knn"):
        one, twenty = result[kind][1], result[kind][20]
        assert len(one["values"]) == 5
        assert one["min"] <= one["mean"] <= one["max"]
        assert twenty["mean"] > one["mean"]
    assert result["linear"][20]["mean"] > 0.9


def test_same_seed_same_figures() -> None:
    once = low_shot(*blobs(), shots=(2,), draws=3, seed=1)
    assert once == low_shot(*blobs(), shots=(2,), draws=3, seed=1)
    assert once != low_shot(*blobs(), shots=(2,), draws=3, seed=2)


def test_without_a_test_set_the_drawn_samples_are_not_scored() -> None:
    labels = torch.arange(8) % 2
    itself = low_shot(torch.eye(8), labels, (3,), draws=4, test=(torch.eye(8), labels))
    assert itself["knn"][3]["min"] >= 6 / 8  # six of the eight are their own neighbours
    swapped = torch.stack([torch.eye(4)[i // 2] for i in range(8)])  # twins of unlike classes
    rest = low_shot(swapped, labels, (3,), draws=4)
    assert rest["knn"][3]["max"] < 1.0


def test_linear_is_that_of_scikit_learn() -> None:
    x, y = blobs(30)
    queries, _ = blobs(90)
    mean, std = x.mean(0), x.std(0, correction=0)
    expected = LogisticRegression(C=1.0).fit((x - mean) / std, y).predict((queries - mean) / std)
    assert _softmax_regression(x, y, 3, queries).tolist() == expected.tolist()


def test_class_with_too_few_samples_is_named() -> None:
    x, y = blobs(12)
    with pytest.raises(DataError, match="class 0 has 4 samples; 4 shots need 5"):
        low_shot(x, y, shots=(1, 4))
