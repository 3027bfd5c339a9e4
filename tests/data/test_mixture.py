"""Mixtures: every batch has its share of each set, and each set is read evenly."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mimsuite.config.keys.shared import Recipe
from mimsuite.data import open_training_set, train_loader
from mimsuite.data.order.mixture import Mixture
from mimsuite.errors import UserError
from tests.data.test_train_stream import global_batches, same


def mixture(counts: list[int], weights: list[float], batch: int, lanes: int, **keys) -> Mixture:
    shards = [np.array([count // 2, count - count // 2]) for count in counts]
    names = [f"set {number}" for number in range(len(counts))]
    return Mixture(shards, weights, names, seed=0, global_batch=batch, lanes=lanes, **keys)


def streams(order: Mixture, step: int) -> list[int]:
    rows = range(order.global_batch)
    return [order.find(step, *divmod(row, order.lanes))[0].stream for row in rows]


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.floats(0.05, 1.0), min_size=1, max_size=4),
    st.sampled_from([(1, 1), (8, 8), (12, 6), (64, 64), (128, 64), (7, 7)]),
    st.integers(0, 10_000),
)
def test_the_shares_hold_in_a_slot_and_along_a_lane(weights, sizes, step) -> None:
    batch, lanes = sizes
    order = mixture([300] * len(weights), weights, batch, lanes)
    expected = np.array(weights) / sum(weights)
    got = Counter(streams(order, step))
    for stream, share in enumerate(expected):
        assert abs(got[stream] - share * batch) <= batch // lanes + 1e-6
    places = len(order._table(0)[0])
    drawn = order._table(lanes - 1)[1][-1]
    assert drawn.sum() == places
    assert np.abs(drawn - expected * places).max() <= 1 + 1e-6


@pytest.mark.parametrize(("batch", "lanes"), [(8, 8), (24, 8), (5, 1)])
def test_each_set_is_read_whole_before_it_begins_anew(batch: int, lanes: int) -> None:
    order = mixture([40, 17], [0.25, 0.75], batch, lanes, block=4)
    seen: list[list[tuple[int, int]]] = [[], []]
    for step in range(60 * 8 // batch):
        for row in range(batch):
            block, place = order.find(step, *divmod(row, lanes))
            address = order.samples_of(block)[place]
            seen[address[0] // 2].append((block.epoch, *address))
    for found, size in zip(seen, (40, 17), strict=True):
        assert max(Counter(found).values()) == 1  # once an epoch of the set
        first = [one for one in found if one[0] == 0]
        assert len(first) == size // lanes * lanes


def write_mixture(make_folder: Callable[..., Path]) -> list[dict[str, object]]:
    first, second = make_folder(30, name="first"), make_folder(20, name="second")
    return [{"source": str(first), "weight": 3.0}, {"source": str(second)}]


def test_a_mixture_streams_the_same_for_any_layout(make_folder, make_recipe) -> None:
    mixed = write_mixture(make_folder)

    def batches(start: int, world: int, **data: object) -> list:
        recipe: Recipe = make_recipe(data={"mixture": mixed, "lanes": 4, "block": 4, **data})
        source = open_training_set(recipe)
        return global_batches(source, recipe, start=start, world=world)

    expected = batches(0, 1)
    assert same(batches(3, 1)[:3], expected[3:])
    assert same(batches(0, 2, workers=2), expected)
    for keys, _, _ in expected:
        assert len(keys) == 8


def test_the_share_of_each_set_in_what_is_read(make_folder, make_recipe) -> None:
    recipe = make_recipe(data={"mixture": write_mixture(make_folder), "block": 4})
    source = open_training_set(recipe)
    loader = train_loader(source, recipe)
    assert (loader.steps_per_epoch, loader.dropped) == (50 // 8, 0)
    assert recipe.data.shown.startswith("75.0% ")
    order = loader._dataset.reader.plan
    assert Counter(streams(order, 0)) == {0: 6, 1: 2}


def test_what_does_not_fit_is_refused(make_folder, make_recipe) -> None:
    mixed = write_mixture(make_folder)
    for key, value in {"source": "x", "limit": 3, "per_class": 1}.items():
        with pytest.raises(UserError, match=rf"data.mixture and data.{key} exclude each other"):
            open_training_set(make_recipe(data={"mixture": mixed, key: value}))
    with pytest.raises(UserError, match="set 1 has 3 samples, fewer than the 8 lanes"):
        mixture([40, 3], [1, 1], 8, 8)
    with pytest.raises(UserError, match="set 1 has less than 1/4096 of the mixture"):
        mixture([40, 40], [1, 1e-4], 8, 8)
    with pytest.raises(UserError, match=r"data\.lanes=3 does not divide"):
        mixture([40, 40], [1, 1], 8, 3)
