"""Lanes are chosen once: a run goes on with those of its checkpoint."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from mimsuite.config.keys.shared import Recipe
from mimsuite.data.loading.dealing import deal_of
from mimsuite.data.order.layout import Layout, layout_of, layout_of_run
from mimsuite.data.order.sample_order import Plan, default_lanes, share_of
from mimsuite.errors import UserError

MakeRecipe = Callable[..., Recipe]


def of_batch(make_recipe: MakeRecipe, batch: int, **data: Any) -> Recipe:
    return make_recipe(train={"global_batch": batch}, data=data)


@pytest.mark.parametrize(
    ("batch", "lanes", "block"),
    [
        (8, 8, 1024),
        (64, 64, 1024),
        (67, 67, 978),
        (100, 100, 655),
        (768, 384, 170),
        (4096, 512, 128),
    ],
)
def test_more_lanes_have_smaller_blocks(
    make_recipe: MakeRecipe, batch: int, lanes: int, block: int
) -> None:
    layout = layout_of(of_batch(make_recipe, batch), [])
    assert layout == Layout(lanes, block)
    assert lanes * block <= 64 * 1024


def test_what_is_asked_for_is_taken(make_recipe: MakeRecipe) -> None:
    assert layout_of(of_batch(make_recipe, 4096, lanes=256), []) == Layout(256, 1024)
    assert layout_of(of_batch(make_recipe, 4096, block=4096), []) == Layout(512, 512)
    assert layout_of(of_batch(make_recipe, 16, lanes=4, block=7), []) == Layout(4, 7)


def test_each_lane_of_a_mixture_has_some_of_each_set(make_recipe: MakeRecipe) -> None:
    assert layout_of(of_batch(make_recipe, 4096), [100_000, 100]).lanes == 64
    assert layout_of(of_batch(make_recipe, 4096), [100_000, 3]).lanes == 2


@pytest.mark.parametrize("batch", [8, 100, 4096])
@pytest.mark.parametrize("asked", [None, 4])
def test_a_checkpoint_that_does_not_say_has_up_to_64_lanes(
    make_recipe: MakeRecipe, batch: int, asked: int | None
) -> None:
    former = of_batch(make_recipe, batch, lanes=asked, block=512)
    document = former.model_dump(mode="json", include={"data", "train"})
    now = of_batch(make_recipe, batch, block=512)
    expected = Layout(asked or default_lanes(batch, 64), 512)
    assert layout_of_run(now, document, {}) == expected
    kept = Layout(2, 3)
    assert layout_of_run(now, document, {"order": kept.facts()}) == kept
    assert layout_of_run(of_batch(make_recipe, 2 * batch), document, {}) is None


@pytest.mark.parametrize(("key", "value"), [("lanes", 512), ("block", 128)])
def test_another_order_is_refused(make_recipe: MakeRecipe, key: str, value: int) -> None:
    document = of_batch(make_recipe, 4096).model_dump(mode="json", include={"data", "train"})
    with pytest.raises(UserError, match=f"data.{key}={value} they would come in another order"):
        layout_of_run(of_batch(make_recipe, 4096, **{key: value}), document, {})


@pytest.mark.parametrize("world", [1, 16, 64, 128, 512])
def test_any_number_of_ranks_has_its_workers_and_the_same_order(world: int) -> None:
    plan = Plan(np.full(1000, 1000), seed=0, global_batch=4096, lanes=512, block=128)
    rows = []
    for rank in range(world):
        share = share_of(plan, rank, world, None)
        for by_lane in (False, True):
            deal = deal_of(share, 8, 3 * 224 * 224, by_lane=by_lane)
            assert deal.workers == (min(8, 512 // world) if by_lane else 8)
            places = [deal.places(0, piece) for piece in range(deal.pieces)]
            assert sorted(np.concatenate(places)) == list(range(4096 // world))
        assert len(share.lanes) == 512 // world  # whole lanes: no other rank fetches them
        rows.append(share.own)
    assert sorted(np.concatenate(rows)) == list(range(4096))
