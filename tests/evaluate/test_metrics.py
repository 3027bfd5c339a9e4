from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import (
    accuracy_score,
    balanced_accuracy_score,
    confusion_matrix,
    top_k_accuracy_score,
)

from mimsuite.evaluate.baselines import majority_scores
from mimsuite.evaluate.metrics import (
    accuracy,
    balanced_accuracy,
    confusion,
    has_top5,
    ranks,
    top5_accuracy,
)

PAIRS = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=40)


@given(PAIRS)
@pytest.mark.filterwarnings("ignore:y_pred contains classes", "ignore:A single label")
def test_figures_are_those_of_scikit_learn(pairs: list[tuple[int, int]]) -> None:
    predicted, labels = torch.tensor(pairs).T
    assert accuracy(predicted, labels) == pytest.approx(accuracy_score(labels, predicted))
    assert balanced_accuracy(predicted, labels) == pytest.approx(
        balanced_accuracy_score(labels, predicted)
    )
    expected = confusion_matrix(labels, predicted, labels=range(5))
    assert confusion(predicted, labels, 5).tolist() == expected.tolist()


def test_constant_guess_is_good_only_where_classes_are_not_balanced() -> None:
    labels = torch.tensor([0] * 9 + [1])
    guess = majority_scores(labels, len(labels), 2).argmax(1)
    assert accuracy(guess, labels) == pytest.approx(0.9)
    assert balanced_accuracy(guess, labels) == pytest.approx(0.5)


def test_top5_is_that_of_scikit_learn() -> None:
    generator = torch.Generator().manual_seed(0)
    table = torch.randn(300, 12, generator=generator)
    labels = torch.randint(12, (300,), generator=generator)
    expected = top_k_accuracy_score(labels, table, k=5, labels=range(12))
    assert top5_accuracy(ranks(table, labels)) == pytest.approx(expected)
    assert [has_top5(classes) for classes in (None, 2, 5, 6)] == [False, False, False, True]


@given(
    st.lists(st.lists(st.integers(0, 2), min_size=7, max_size=7), min_size=1, max_size=9),
    st.integers(0, 6),
)
def test_ranks_are_places_in_a_stable_order(rows: list[list[int]], label: int) -> None:
    table, labels = torch.tensor(rows).float(), torch.full((len(rows),), label)
    order = table.argsort(dim=1, descending=True, stable=True)
    assert torch.equal(ranks(table, labels), (order == label).int().argmax(1))
    assert torch.equal(ranks(table, labels) == 0, order[:, 0] == label)


def test_scores_that_are_no_numbers_and_unknown_classes_are_wrong() -> None:
    nan = float("nan")
    table = torch.tensor([[nan] * 6, [1.0, nan, nan, nan, nan, nan], [1.0] * 6])
    assert top5_accuracy(ranks(table, torch.tensor([0, 0, 6]))) == 0.0
