from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, balanced_accuracy_score, confusion_matrix

from mimsuite.evaluate.baselines import majority
from mimsuite.evaluate.metrics import accuracy, balanced_accuracy, confusion

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
    guess = majority(labels, len(labels))
    assert accuracy(guess, labels) == pytest.approx(0.9)
    assert balanced_accuracy(guess, labels) == pytest.approx(0.5)
