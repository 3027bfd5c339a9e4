"""Which splits a probe trains and is tested on."""

from __future__ import annotations

import re

import pytest

from mimsuite import config
from mimsuite.errors import UserError
from mimsuite.evaluate.sources import open_labelled


def splits(recipe, source, *overrides):
    resolved = config.load(recipe / "probe.yaml", [f"data.source={source}", *overrides])
    train, test = open_labelled(resolved)
    return train.split, test and test.split


@pytest.fixture
def with_val(pictures, tmp_path):
    """The pictures with another name for their test split."""
    for split, name in (("train", "train"), ("test", "validation")):
        (tmp_path / name).symlink_to(pictures / split)
    return tmp_path


def test_a_recipe_that_names_no_split_takes_what_there_is(recipes, pictures, with_val):
    assert splits(recipes, pictures) == ("train", "test")
    assert splits(recipes, with_val) == ("train", "val")
    assert splits(recipes, pictures / "train") == ("train", None)


@pytest.mark.parametrize("word", ["val", "valid", "validation"])
def test_a_named_split_is_taken_by_any_of_its_words(recipes, with_val, word):
    assert splits(recipes, with_val, f"eval.split={word}") == ("train", "val")


def test_a_named_split_that_is_not_there_is_an_error(recipes, pictures):
    with pytest.raises(UserError, match=r"eval\.split: .* has no split 'val'; it has: t"):
        splits(recipes, pictures, "eval.split=val")
    with pytest.raises(UserError, match=r"^eval\.split: .* no split 'mine'; it has: train$"):
        splits(recipes, pictures / "train", "eval.split=mine")
    message = re.escape("eval.split: 'train' is the split that is trained on (data.split)")
    with pytest.raises(UserError, match=message):
        splits(recipes, pictures, "eval.split=train")
