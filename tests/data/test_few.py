"""A few samples of each class: how many, which, and that they read as in the whole set."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mimsuite.data.image.decode import ImageDecoder
from mimsuite.data.sources.arrays import ArraySource
from mimsuite.data.sources.few import few_of_each_class
from mimsuite.errors import DataError


def make_source(labels: list[int]) -> ArraySource:
    images = np.arange(len(labels), dtype=np.uint8)[:, None, None].repeat(4, 1).repeat(4, 2)
    return ArraySource(
        images,
        np.array(labels),
        name="made",
        split="train",
        classes=["a", "b", "c"],
        decoder=ImageDecoder("gray", 1000),
    )


@settings(deadline=None, max_examples=30)
@given(
    labels=st.lists(st.integers(-1, 2), min_size=1, max_size=40).filter(lambda x: max(x) >= 0),
    per_class=st.integers(1, 8),
    seed=st.integers(0, 5),
)
def test_as_many_as_asked_for_or_as_there_are(labels: list[int], per_class: int, seed: int) -> None:
    few = few_of_each_class(make_source(labels), per_class, seed)

    found = few.labels()
    assert (found >= 0).all()
    for label in range(3):
        assert (found == label).sum() == min(per_class, labels.count(label))
    assert len({few.key(shard, 0) for shard in range(len(few))}) == len(few)


def test_a_smaller_draw_lies_in_a_larger_one_and_seeds_differ() -> None:
    source = make_source([0, 1, 2] * 30)

    def keys(per_class: int, seed: int) -> set[str]:
        few = few_of_each_class(source, per_class, seed)
        return {few.key(shard, 0) for shard in range(len(few))}

    assert keys(3, 0) < keys(7, 0)
    assert keys(3, 0) == keys(3, 0)
    assert keys(3, 0) != keys(3, 1)


def test_samples_are_those_of_the_whole_set_in_a_worker_too() -> None:
    source = make_source([0, 1, 2] * 10)
    few = pickle.loads(pickle.dumps(few_of_each_class(source, 2, seed=0)))

    for shard in range(len(few)):
        sample = few.read(shard, 0)
        number = int(sample.key.split("/")[1])
        assert sample.label == number % 3
        assert (few.decode(sample) == number).all()


def test_a_set_without_labels_is_refused() -> None:
    with pytest.raises(DataError, match=r"data\.per_class=2 draws from labels; made has none"):
        few_of_each_class(make_source([-1, -1]), 2, seed=0)
