from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from mimsuite.config.keys.shared import DataSection, Recipe
from mimsuite.data import open_fold, open_training_set
from mimsuite.data.sources.folds import fold_numbers


@given(st.lists(st.integers(-1, 3), min_size=1, max_size=60), st.integers(2, 7))
def test_folds_are_a_partition_balanced_by_class_and_in_all(labels: list[int], folds: int) -> None:
    numbers = np.array(labels)
    fold = fold_numbers(numbers, folds)
    for chosen in (*[numbers == label for label in set(labels)], np.ones(len(labels), bool)):
        sizes = np.bincount(fold[chosen], minlength=folds)
        assert len(sizes) == folds
        assert sizes.max() - sizes.min() <= 1


def test_training_leaves_out_the_fold_and_only_that(
    make_folder: Callable[..., Path], make_recipe: Callable[..., Recipe]
) -> None:
    source = str(make_folder(20, classes=3))
    held, trained = [], []
    for fold in range(4):
        recipe = make_recipe(data={"source": source, "folds": 4, "fold": fold})
        kept, left = open_training_set(recipe), open_fold(recipe)
        assert left is not None
        names = [{s.key(*s.locate(i)) for i in range(len(s))} for s in (kept, left)]
        assert names[0].isdisjoint(names[1])
        trained.append(len(kept))
        held += sorted(names[1])
    assert len(held) == len(set(held)) == 20
    assert trained == [15] * 4
    assert open_fold(make_recipe(data={"source": source})) is None


def test_a_fold_that_is_none_is_refused() -> None:
    with pytest.raises(ValidationError, match=r"data\.fold 5 must be below 5 \(from 0\)"):
        DataSection(folds=5, fold=5)
